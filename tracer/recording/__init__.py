"""Recording live traffic to capture files.

pcapng_writer  blocks of a pcapng file
rotation       a row of files, by size, time and number
redaction      secrets overwritten in place, lengths kept
recorder       several live sources, in time order, into the files
"""
