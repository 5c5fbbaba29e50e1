package numa

import (
	"testing"

	"github.com/klauspost/cpuid/v2"
)

// The leaf that says whether there is RDPID, by other bits of it that a library
// reads too: one wrong register, and either all or none would be there.
func TestLeaf7(t *testing.T) {
	ecx := cpuid7()
	for bit, feature := range map[int]cpuid.FeatureID{8: cpuid.GFNI, 9: cpuid.VAES, 10: cpuid.VPCLMULQDQ, 25: cpuid.CLDEMOTE, 27: cpuid.MOVDIRI} {
		if has := ecx>>bit&1 == 1; has != cpuid.CPU.Has(feature) {
			t.Errorf("%s: leaf 7 says %v, the library %v", feature, has, cpuid.CPU.Has(feature))
		}
	}
}
