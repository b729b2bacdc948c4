"""Reading rows of a scene from files: in parallel, sharded over ranks, shuffled, and from any position on."""
