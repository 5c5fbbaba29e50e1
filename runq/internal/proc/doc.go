// Package proc is the process plumbing of runq: names that one opener holds,
// worker processes, links between them, and their deaths. It knows nothing of
// the queue's protocol.
//
// A [Name] is a file under flock(2), which the kernel lets go when its holder
// dies, however it dies. [Spawn] runs the program once more as a worker, in a
// process group of its own, so that an interrupt from the terminal reaches the
// opener alone; [Child] finds that out in the worker and must come first in
// main. Over the worker's [Boot] socket go files: links, pidfds and whatever
// else the caller hands over. A [Group] gives every pair of workers a link of
// their own and renews it when a worker gets a new life. A [Link] carries
// frames: batches of many small items, checked by CRC-32C, that cost no
// allocation. Sends never wait for a slow peer, they drop; submitters wait.
//
// Death is seen through pidfds, and signals go through them. They come from
// clone(2) and SCM_RIGHTS and never from a number that was stored, so they can
// not mean a stranger who got the number later.
//
// A worker that was killed is over, see [Worker.Over], as soon as all its threads are
// on their way out of the kernel, which is milliseconds before its pidfd tells. A
// robust futex of its loop's thread says when to look.
//
// The parent death signal kills no worker: the kernel sends it when the thread
// that forked dies, not its process, and threads of a Go program come and go; and
// it would leave no grace to what a worker has begun. A worker watches the
// opener's pidfd instead. One that stands still cannot, so its parent death signal
// is SIGCONT, which harms nobody that runs. The kernel's SIGHUP and SIGCONT for
// orphaned groups do not do here: they come only after every thread of the group
// has stopped, and not where the new parent is of the same session. A worker that
// is stopped after its opener's death stays until continued.
//
// One-sided writes that revoke instead of asking come from Mu (OSDI 2020); the
// idea of pidfds is Christian Brauner's. The package does not help against a
// process that the kernel cannot kill, hides nothing from another process of the
// same user, and a frame's checksum proves no author.
package proc
