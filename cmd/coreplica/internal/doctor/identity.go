package doctor

import (
	"strings"

	"github.com/klauspost/cpuid/v2"
)

// featureIDs are the features that doctor asks klauspost/cpuid about, by
// architecture.
var featureIDs = map[string]map[string]cpuid.FeatureID{
	"amd64": {
		"SSE4.2": cpuid.SSE42, "PCLMULQDQ": cpuid.CLMUL, "AVX2": cpuid.AVX2, "AVX512F": cpuid.AVX512F,
		"SHA-NI": cpuid.SHA, "ERMS": cpuid.ERMS, "RDTSCP": cpuid.RDTSCP,
	},
	"arm64": {"CRC32": cpuid.CRC32, "SHA2": cpuid.SHA2},
}

// klauspost asks the library that coreplica goes by.
func klauspost(arch string) Identity {
	identity := Identity{
		Library:  "klauspost/cpuid",
		Brand:    brand(cpuid.CPU.BrandName),
		Features: map[string]bool{},
		L3Bytes:  max(cpuid.CPU.Cache.L3, 0), // -1 means unknown.
		Virtual:  cpuid.CPU.VM(),
	}
	for name, id := range featureIDs[arch] {
		identity.Features[name] = cpuid.CPU.Has(id)
	}
	return identity
}

// brand drops the padding that CPUs put into their 48 bytes.
func brand(raw string) string {
	return strings.Join(strings.FieldsFunc(raw, func(r rune) bool { return r == 0 || r == ' ' }), " ")
}
