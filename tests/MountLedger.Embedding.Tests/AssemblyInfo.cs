// One mount table: the tests of this assembly follow each other.
[assembly: CollectionBehavior(DisableTestParallelization = true)]
