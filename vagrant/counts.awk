# Reads the JSON report of `coreplica mirrorcost run`, as it is indented there,
# and checks its counts: each leg acknowledged all writes, and as many of its
# devices got at least one bio for each of them as the leg makes copies. Set
# writes to the number of writes of each leg.

/^  "[a-z0-9_]+": / {
	leg = $1
	gsub(/[":]/, "", leg)
}

/^    "acknowledged": / { acknowledged[leg] = $2 + 0 }

/^    "copies": / { copies[leg] = $2 + 0 }

/^    "bios_data_per_device": \{/ {
	inside = 1
	next
}

/^    \}/ { inside = 0 }

inside {
	bios[leg] = bios[leg] " " $2 + 0
	if ($2 + 0 >= writes) full[leg]++
}

END {
	wrong = !(copies["mirror"] > copies["baseline"])
	split("baseline mirror", legs, " ")
	for (i = 1; i <= 2; i++) {
		leg = legs[i]
		printf "%s: %d of %d writes acknowledged, %d copies, bios of the devices:%s\n",
			leg, acknowledged[leg], writes, copies[leg], bios[leg]
		if (acknowledged[leg] != writes || copies[leg] < 1 || full[leg] != copies[leg]) wrong = 1
	}
	exit wrong
}
