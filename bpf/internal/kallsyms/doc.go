// Package kallsyms reads the kernel's symbol table and finds the function that
// holds an address. It knows functions only: data symbols are left out, so that
// an address in a gap is not blamed on a variable.
package kallsyms
