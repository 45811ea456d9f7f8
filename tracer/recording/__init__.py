"""Records live traffic to capture files, and writes the packets of single traces to a file.

pcapng_writer  blocks of a pcapng file
rotation       a series of files, limited by size, time and number
redaction      overwrites secrets in place, lengths kept
recorder       several live sources, in time order, into the files
"""
