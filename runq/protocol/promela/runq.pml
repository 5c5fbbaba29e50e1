/*
 * The run queue's core in Promela: publish, seal, takeover and tombstones, for
 * one log, two copies, and takers that may stop between any two steps.
 *
 * A record is one of two tasks' ENQ or DONE, so a log is a sequence of numbers.
 * An owner writes a record into both copies, publishes it in one after the other
 * by compare-and-swap, and only then acknowledges. A taker raises the epoch in
 * the arbiter, seals the copies, takes the longest, writes it into fresh copies
 * and makes them active. A submit may be repeated, late, by whoever sent it.
 *
 * Checked, as assertions at the places that they speak of:
 *   acknowledged records are in what a taker recovers (I3, I8);
 *   nothing is published in a copy that is sealed (I4);
 *   a task that ended never becomes ready again (I5);
 *   a task's end is acknowledged once (I6).
 *
 * Mutants, each of which must break an assertion:
 *   -DACK_EARLY      acknowledge after the first copy
 *   -DNO_SEAL        recover without sealing
 *   -DSHORTEST       recover the shortest copy, a lost one too
 *   -DFORGET         drop the memory of an ID with its tombstone
 *   -DNO_ACTIVE      recover from the epoch of a taker that never got active
 */

#define COPIES 2
#define MAXLEN 5
#define EPOCHS 4   /* 1 is the first owner's; two takers may follow. */
#define TASKS 2

/* Records: task t enqueued is 2t+1, done is 2t+2. */
#define ENQ(t) (2*(t)+1)
#define DONE(t) (2*(t)+2)

typedef Copy {
	byte log[MAXLEN];
	byte tail;
	bool sealed;
	bool lost;
}

typedef Epoch {
	Copy copy[COPIES];
}

Epoch mem[EPOCHS + 1];

/* The arbiter word. */
byte epoch = 1;
byte served = 1;

bool acked[TASKS];     /* The submitter heard that the task is accepted. */
bool ended[TASKS];     /* Somebody heard that it is done. */
byte crashes = 1;      /* How many copies may still be lost. */
byte takeovers = 0;

/* What a process knows of the log: which tasks are ready, which were seen. */
inline replay(e, c, size) {
	i = 0;
	do
	:: i < TASKS -> ready[i] = false; seen[i] = false; i++
	:: else -> break
	od;
	i = 0;
	do
	:: i < size ->
		t = (mem[e].copy[c].log[i] - 1) / 2;
		if
		:: mem[e].copy[c].log[i] == ENQ(t) && !seen[t] -> ready[t] = true; seen[t] = true
		:: mem[e].copy[c].log[i] == DONE(t) -> ready[t] = false; seen[t] = true
		:: else -> skip
		fi;
		i++
	:: else -> break
	od
}

/* One copy's slot store and compare-and-swap. Stores are not fenced. */
inline publish(c, rec) {
	d_step { mem[mine].copy[c].log[size] = rec };
	atomic {
		if
		:: mem[mine].copy[c].tail == size && !mem[mine].copy[c].sealed && !mem[mine].copy[c].lost ->
			assert(!mem[mine].copy[c].sealed);
			mem[mine].copy[c].tail = size + 1
		:: else -> fenced = true
		fi
	}
}

inline acknowledge(rec, task) {
	atomic {
		if
		:: rec == ENQ(task) -> acked[task] = true
		:: else -> assert(!ended[task]); ended[task] = true
		fi
	}
}

/* Append a record and acknowledge it when every copy has it. */
inline append(rec, task) {
	publish(0, rec);
	if
	:: !fenced ->
#ifdef ACK_EARLY
		acknowledge(rec, task);
		publish(1, rec)
#else
		publish(1, rec);
		if
		:: !fenced -> acknowledge(rec, task)
		:: else -> skip
		fi
#endif
	:: else -> skip
	fi;
	size++
}

/* Serve the log under one epoch until fenced or stopped. Who has lost the log and
 * does not know it may start what has ended: only its result is refused. */
inline serve() {
	do
	:: !fenced && size < MAXLEN ->
		if
		:: !seen[0] -> append(ENQ(0), 0); seen[0] = true; ready[0] = true
		:: !seen[1] -> append(ENQ(1), 1); seen[1] = true; ready[1] = true
		:: ready[0] -> assert(epoch > mine || !ended[0]); append(DONE(0), 0); ready[0] = false; forget(0)
		:: ready[1] -> assert(epoch > mine || !ended[1]); append(DONE(1), 1); ready[1] = false; forget(1)
		:: break /* It stops, or stands still for ever. */
		fi
	:: else -> break
	od
}

inline forget(task) {
#ifdef FORGET
	seen[task] = false
#else
	skip
#endif
}

/* The first owner. */
proctype Owner() {
	byte mine = 1, size = 0, i = 0, t = 0;
	bool fenced = false;
	bool ready[TASKS];
	bool seen[TASKS];
	serve()
}

/* A taker: it may stop at any step, and then the next one begins anew. */
proctype Taker() {
	byte mine = 0, from = 0, best = 0, i = 0, t = 0, size = 0;
	bool fenced = false, won = false;
	bool ready[TASKS];
	bool seen[TASKS];
	byte found = 0;

	/* A new epoch, by compare-and-swap: RECOVERING. The last active one stays. */
	atomic {
		mine = epoch + 1;
		epoch = mine;
#ifdef NO_ACTIVE
		from = mine - 1;
#else
		from = served;
#endif
	}
	if :: goto stop :: skip fi;

	/* Seal what is left. */
#ifndef NO_SEAL
	mem[from].copy[0].sealed = true;
	if :: goto stop :: skip fi;
	mem[from].copy[1].sealed = true;
	if :: goto stop :: skip fi;
#endif

	/* The highest sealed tail. */
	d_step {
#ifdef SHORTEST
		if
		:: mem[from].copy[0].tail < mem[from].copy[1].tail -> found = 0
		:: else -> found = 1
		fi;
#else
		if
		:: mem[from].copy[0].lost -> found = 1
		:: mem[from].copy[1].lost -> found = 0
		:: else ->
			if
			:: mem[from].copy[0].tail >= mem[from].copy[1].tail -> found = 0
			:: else -> found = 1
			fi
		fi;
#endif
		best = mem[from].copy[found].tail;
		replay(from, found, best)
	}

	/* Fresh copies, one after the other: only a snapshot, a record a task. */
	d_step {
		size = 0; t = 0;
		do
		:: t < TASKS ->
			if
			:: seen[t] && ready[t] -> mem[mine].copy[0].log[size] = ENQ(t); mem[mine].copy[1].log[size] = ENQ(t); size++
			:: seen[t] && !ready[t] -> mem[mine].copy[0].log[size] = DONE(t); mem[mine].copy[1].log[size] = DONE(t); size++
			:: else -> skip
			fi;
			t++
		:: else -> break
		od;
	}
	if :: goto stop :: skip fi;
	mem[mine].copy[0].tail = size;
	if :: goto stop :: skip fi;
	mem[mine].copy[1].tail = size;
	if :: goto stop :: skip fi;

	/* ACTIVE, by compare-and-swap: what is recovered now is the log. */
	atomic {
		if
		:: epoch == mine ->
			served = mine; won = true;
			assert(!acked[0] || seen[0]);
			assert(!acked[1] || seen[1]);
			assert(!ended[0] || !ready[0]);
			assert(!ended[1] || !ready[1])
		:: else -> skip
		fi
	}
	if
	:: won -> serve()
	:: else -> skip
	fi;
stop:
	skip
}

/* One copy of the last served epoch may be lost, never the last one. */
proctype Crash() {
	byte c;
	atomic {
		if
		:: crashes > 0 ->
			crashes--;
			if :: c = 0 :: c = 1 fi;
			mem[served].copy[c].lost = true;
			mem[served].copy[c].tail = 0
		:: skip
		fi
	}
}

init {
	atomic {
		run Owner();
		run Crash();
		run Taker();
		run Taker()
	}
}
