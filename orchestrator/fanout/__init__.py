"""Fanning out into deployed runs; `orchestrator.submission` is what people import.

options    what a submission is told
outcomes   what becomes of a run, in words
parent     the run that submits: what makes a submission the same one when it is retried
outer      the flow runs that a run is part of: their tags, and how it is found again in their next attempts
target     the deployment, and whether parameters fit it
changes    who waits until something has changed, and what runs in the background meanwhile
calls      the only door to the server for runs: one request each, and who waits for how long when it fails
stream     the server's events about our runs
creation   items → runs that exist, in bulk, each once
track      one run, as far as it is known while it is followed
limits     how long a run may wait, run, or be away after a crash
known_ends what reads have told of ends, held against what the server counts
watch      runs → what became of them, by events and by a slow poll that finds what they missed
ending     cancelling, and starting again
hints      why runs wait
progress   log lines and artifacts while runs end
results    what the flows of runs have returned
columns    lists of parameters → the parameters of each run
shutdown   ending a submission before its runs have ended
flow_submission  the class that people have in their hands: it holds all of these together
log        where the lines go
"""
