//go:build amd64

package identity

import (
	"fmt"

	"github.com/intel-go/cpuid"
)

// Libraries asks both libraries, the one to trust first. intel-go/cpuid does not
// compile elsewhere.
func Libraries() []CPU { return []CPU{klauspost("amd64"), intel()} }

// intel asks the second opinion. Its AVX-512 flag is what the CPU has; the
// system must enable it too.
func intel() CPU {
	c := CPU{
		Library: "intel-go/cpuid",
		Brand:   brand(cpuid.ProcessorBrandString),
		Features: map[string]bool{
			"SSE4.2":    cpuid.HasFeature(cpuid.SSE4_2),
			"PCLMULQDQ": cpuid.HasFeature(cpuid.PCLMULQDQ),
			"AVX2":      cpuid.HasExtendedFeature(cpuid.AVX2) && cpuid.EnabledAVX,
			"AVX512F":   cpuid.HasExtendedFeature(cpuid.AVX512F) && cpuid.EnabledAVX512,
			"SHA-NI":    cpuid.HasExtendedFeature(cpuid.SHA),
			"ERMS":      cpuid.HasExtendedFeature(cpuid.ERMS),
			"RDTSCP":    cpuid.HasExtraFeature(cpuid.RDTSCP),
		},
		Virtual: cpuid.HasFeature(cpuid.HYPERVISOR),
	}
	for _, cache := range cpuid.CacheDescriptors {
		if cache.Level == 3 && cache.CacheSize > 0 {
			c.L3Bytes = cache.CacheSize << 10
		}
	}
	return c
}

// intelOpinion has what the second library knows of caches; it knows no cores.
func intelOpinion() (Opinion, bool) {
	o := Opinion{Source: "intel-go/cpuid", Facts: map[string]int{
		factLine: int(cpuid.CacheLineSize), "L1d bytes": 0, "L1i bytes": 0, "L2 bytes": 0, "L3 bytes": 0,
	}}
	kinds := map[int]string{cpuid.DATA_CACHE: "d", cpuid.INSTRUCTION_CACHE: "i"}
	for _, c := range cpuid.CacheDescriptors {
		name := fmt.Sprintf("L%d%s bytes", c.Level, kinds[c.CacheType])
		if _, asked := o.Facts[name]; asked && c.CacheSize > 0 {
			o.Facts[name] = c.CacheSize << 10
		}
	}
	return o, true
}
