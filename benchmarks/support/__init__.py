"""What the proofs share: releases that can be told apart, clients, stacks of servers."""
