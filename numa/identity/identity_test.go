package identity

import "testing"

// Two libraries and the kernel read the same CPUID. Where the libraries differ
// about a feature, one of them has a fault that figures may depend on; about the
// last cache they are known to differ.
func TestLibrariesAgreeOnFeatures(t *testing.T) {
	all := Libraries()
	for _, second := range all[1:] {
		for name, there := range all[0].Features {
			if second.Features[name] != there {
				t.Errorf("%s says %s is %v, %s says %v", all[0].Library, name, there, second.Library, second.Features[name])
			}
		}
		if all[0].Brand != second.Brand {
			t.Errorf("%s says %q, %s says %q", all[0].Library, all[0].Brand, second.Library, second.Brand)
		}
	}
}

func TestBrand(t *testing.T) {
	if got := brand("  AMD  EPYC \x00\x00"); got != "AMD EPYC" {
		t.Errorf("brand = %q", got)
	}
}
