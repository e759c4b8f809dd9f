"""Raw releases to shards that training reads: what a data set is, what is done with it, how a stopped run goes on."""
