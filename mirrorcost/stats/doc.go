// Package stats turns figures of quads into intervals.
//
// Blocks of a measurement that follow each other resemble each other, so they
// are no independent samples; the quad of four blocks, ABBA or BAAB, is. All
// functions take one figure a quad and give 95 % intervals: Student's t for
// means, and for the ratio of two means the bias-corrected and accelerated
// bootstrap (Efron, Better Bootstrap Confidence Intervals, JASA 1987; DiCiccio
// and Efron, Bootstrap Confidence Intervals, Statistical Science 1996).
//
// It does not help where quads resemble each other too: [LagOne] shows that.
package stats
