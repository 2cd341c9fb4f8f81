// The tests of this assembly follow each other. Until it runs its program, a child that one of them starts has all descriptors of the test beside it, and
// whoever begins a namespace has copies of all its mounts: a lock would stay taken, a filesystem busy, a program that was just written would not start.
[assembly: CollectionBehavior(DisableTestParallelization = true)]
