package cpulist

import (
	"slices"
	"testing"
)

func TestParse(t *testing.T) {
	tests := []struct {
		list string
		want []int
		bad  bool
	}{
		{"0", []int{0}, false},
		{"0-3,8\n", []int{0, 1, 2, 3, 8}, false},
		{"2,0", []int{2, 0}, false},
		{"", nil, false},
		{"\n", nil, false},
		{"8191", []int{8191}, false},
		{"8192", nil, true}, {"-1", nil, true}, {"3-1", nil, true}, {"a", nil, true}, {"0-", nil, true},
		{"0-99999999", nil, true}, {",", nil, true}, {"0,,1", nil, true}, {"+1", nil, true}, {"0-3-5", nil, true},
		{"0-31:2/4", nil, true}, {"0-8000,0-8000", nil, true},
	}
	for _, tt := range tests {
		got, err := Parse(tt.list)
		if (err != nil) != tt.bad || !slices.Equal(got, tt.want) {
			t.Errorf("Parse(%q) = %v, %v; want %v", tt.list, got, err, tt.want)
		}
	}
}

func TestFormat(t *testing.T) {
	for want, numbers := range map[string][]int{
		"": nil, "0": {0}, "0-1": {0, 1}, "0-3,8": {0, 1, 2, 3, 8}, "1,3,5-7": {1, 3, 5, 6, 7},
	} {
		if got := Format(numbers); got != want {
			t.Errorf("Format(%v) = %q, want %q", numbers, got, want)
		}
	}
}

// However wild the text, Parse neither panics nor allocates without bound, and
// what it took in order comes back from Format.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"", "0-3,8", "0-99999999999", "-", ",,", "1-1-1", "0-8000,1-8000"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, list string) {
		numbers, err := Parse(list)
		if len(numbers) > Most || err != nil && numbers != nil {
			t.Fatalf("Parse(%q) = %d numbers, %v", list, len(numbers), err)
		}
		slices.Sort(numbers)
		numbers = slices.Compact(numbers)
		again, err := Parse(Format(numbers))
		if err != nil || !slices.Equal(again, numbers) {
			t.Fatalf("%v becomes %q becomes %v, %v", numbers, Format(numbers), again, err)
		}
	})
}
