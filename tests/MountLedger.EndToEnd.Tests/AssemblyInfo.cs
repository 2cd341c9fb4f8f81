// One mount table, one set of loop devices and two cores: the tests of this assembly follow each other.
[assembly: CollectionBehavior(DisableTestParallelization = true)]
