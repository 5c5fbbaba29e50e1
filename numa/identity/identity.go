package identity

import (
	"strings"

	"github.com/klauspost/cpuid/v2"
)

// CPU is what one CPUID library says of the processor.
type CPU struct {
	// Library is its import path.
	Library string
	Brand   string
	// Features has an entry for every feature that the library was asked
	// about.
	Features map[string]bool
	// L3Bytes is the size of the last cache; 0 means that the library did
	// not find it.
	L3Bytes int
	// Virtual is true where a hypervisor says that it is there.
	Virtual bool
}

// featureIDs are the features that klauspost/cpuid is asked about, by
// architecture.
var featureIDs = map[string]map[string]cpuid.FeatureID{
	"amd64": {
		"SSE4.2": cpuid.SSE42, "PCLMULQDQ": cpuid.CLMUL, "AVX2": cpuid.AVX2, "AVX512F": cpuid.AVX512F,
		"SHA-NI": cpuid.SHA, "ERMS": cpuid.ERMS, "RDTSCP": cpuid.RDTSCP,
	},
	"arm64": {"CRC32": cpuid.CRC32, "SHA2": cpuid.SHA2},
}

// klauspost asks the library that coreplica goes by.
func klauspost(arch string) CPU {
	c := CPU{
		Library:  "klauspost/cpuid",
		Brand:    brand(cpuid.CPU.BrandName),
		Features: map[string]bool{},
		L3Bytes:  max(cpuid.CPU.Cache.L3, 0), // -1 means unknown.
		Virtual:  cpuid.CPU.VM(),
	}
	for name, id := range featureIDs[arch] {
		c.Features[name] = cpuid.CPU.Has(id)
	}
	return c
}

// brand drops the padding that CPUs put into their 48 bytes.
func brand(raw string) string {
	return strings.Join(strings.FieldsFunc(raw, func(r rune) bool { return r == 0 || r == ' ' }), " ")
}
