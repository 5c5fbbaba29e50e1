package object

// The objects are checked in for both architectures; generate_test.go compiles
// them again and compares bytes. Debian's clang 14 is the pinned compiler.
// Each source is compiled once for every way to attach (see bpf/src/attach.h).

//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -no-global-types -target amd64,arm64 -go-package object ledgerBTF ../../src/ledger.bpf.c -- -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -DATTACH=1
//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -no-global-types -target amd64,arm64 -go-package object ledgerRaw ../../src/ledger.bpf.c -- -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -DATTACH=2
//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -no-global-types -target amd64,arm64 -go-package object ledgerEvent ../../src/ledger.bpf.c -- -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -DATTACH=3
//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -no-global-types -target amd64 -go-package object vectorsBTF ../../src/vectors.bpf.c -- -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -DATTACH=1
//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -no-global-types -target amd64 -go-package object vectorsRaw ../../src/vectors.bpf.c -- -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -DATTACH=2
//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -no-global-types -target amd64 -go-package object vectorsEvent ../../src/vectors.bpf.c -- -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -DATTACH=3
//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -no-global-types -target amd64,arm64 -go-package object blockioBTF ../../src/blockio.bpf.c -- -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -DATTACH=1
//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -no-global-types -target amd64,arm64 -go-package object blockioRaw ../../src/blockio.bpf.c -- -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -DATTACH=2
//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -no-global-types -target amd64,arm64 -go-package object blockioEvent ../../src/blockio.bpf.c -- -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -DATTACH=3
//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -no-global-types -target amd64,arm64 -go-package object stacks ../../src/stacks.bpf.c -- -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter
