module github.com/coreplica/coreplica/benchmarks

go 1.26.0

replace github.com/coreplica/coreplica => ..

require (
	github.com/alitto/pond/v2 v2.7.1
	github.com/coreplica/coreplica v0.0.0-00010101000000-000000000000
	github.com/panjf2000/ants/v2 v2.12.1
	github.com/puzpuzpuz/xsync/v4 v4.5.0
	github.com/tidwall/btree v1.8.2
)

require (
	golang.org/x/sync v0.23.0 // indirect
	golang.org/x/sys v0.50.0 // indirect
)
