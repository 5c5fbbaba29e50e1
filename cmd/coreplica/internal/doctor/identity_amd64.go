//go:build amd64

package doctor

import "github.com/intel-go/cpuid"

// identities asks both libraries. intel-go/cpuid does not compile elsewhere.
func identities() []Identity { return []Identity{klauspost("amd64"), intel()} }

// intel asks the second opinion. Its AVX-512 flag is what the CPU has; the
// system must enable it too.
func intel() Identity {
	identity := Identity{
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
			identity.L3Bytes = cache.CacheSize << 10
		}
	}
	return identity
}
