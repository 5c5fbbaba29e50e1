package cpulist

import (
	"fmt"
	"strconv"
	"strings"
)

// Most is one more than the largest number in a list: the largest NR_CPUS that
// any architecture builds with. It bounds what a wild text may allocate.
const Most = 8192

// Parse returns the numbers of a list in the order in which they stand, with
// repetitions: a user who writes "2,0" means that order. The empty list, which
// the kernel prints where there is nothing, is no error.
func Parse(list string) ([]int, error) {
	trimmed := strings.TrimSpace(list)
	if trimmed == "" {
		return nil, nil
	}
	var numbers []int
	for part := range strings.SplitSeq(trimmed, ",") {
		first, last, ranged := strings.Cut(part, "-")
		from, err := number(first)
		to := from
		if err == nil && ranged {
			to, err = number(last)
		}
		if err != nil || to < from || len(numbers)+to-from >= Most {
			return nil, fmt.Errorf("parse list %q: %q is not a number below %d or a range such as 0-3", shorten(list), shorten(part), Most)
		}
		for n := from; n <= to; n++ {
			numbers = append(numbers, n)
		}
	}
	return numbers, nil
}

// number takes digits alone: the kernel prints no signs.
func number(text string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err == nil && n >= Most {
		err = strconv.ErrRange
	}
	return int(n), err
}

// shorten keeps a wild text from filling an error message.
func shorten(text string) string {
	const most = 60
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}

// Format writes ascending numbers as the kernel does: ranges where two or more
// follow each other.
func Format(numbers []int) string {
	var b strings.Builder
	for i := 0; i < len(numbers); {
		end := i
		for end+1 < len(numbers) && numbers[end+1] == numbers[end]+1 {
			end++
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(numbers[i]))
		if end > i {
			b.WriteString("-" + strconv.Itoa(numbers[end]))
		}
		i = end + 1
	}
	return b.String()
}
