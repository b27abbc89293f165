print "no flow of ours"
