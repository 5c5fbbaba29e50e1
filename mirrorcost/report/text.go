package report

import (
	"math"
	"strings"
	"unicode/utf8"
)

// tableWidth is the number of columns that a table keeps within.
const tableWidth = 100

// pad fills text up to a width, on the right.
func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text)))
}

// padLeft fills text up to a width, on the left.
func padLeft(text string, width int) string {
	return strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text))) + text
}

// clip shortens text to a width and shows that it did.
func clip(text string, width int) string {
	text = printable(text)
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	return string([]rune(text)[:max(0, width-1)]) + "…"
}

// printable takes out what would move a terminal's cursor or change its
// colour: names come from the kernel and from files.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, text)
}

// wrap breaks text into lines of a width at spaces. A word that is longer than
// a line is broken too.
func wrap(text string, width int) []string {
	var lines []string
	var line string
	for _, word := range strings.Fields(printable(text)) {
		for utf8.RuneCountInString(word) > width {
			if line != "" {
				lines, line = append(lines, line), ""
			}
			runes := []rune(word)
			lines, word = append(lines, string(runes[:width])), string(runes[width:])
		}
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= width:
			line += " " + word
		default:
			lines, line = append(lines, line), word
		}
	}
	if line != "" || len(lines) == 0 {
		lines = append(lines, line)
	}
	return lines
}

// eighths are blocks of one to eight eighths of a column.
var eighths = []rune("▏▎▍▌▋▊▉█")

// bar draws a value as a share of a largest one over so many columns. What is
// above zero shows at least an eighth of a column.
func bar(value, largest float64, width int) string {
	if !(value > 0) || !(largest > 0) || math.IsInf(value, 0) {
		return ""
	}
	units := int(math.Round(math.Min(value/largest, 1) * float64(width*len(eighths))))
	units = max(units, 1)
	text := strings.Repeat(string(eighths[len(eighths)-1]), units/len(eighths))
	if rest := units % len(eighths); rest > 0 {
		text += string(eighths[rest-1])
	}
	return text
}
