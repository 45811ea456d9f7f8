"""What is known of an OpenStack cloud, as tables with their sources. Another release or vendor is rows here.

services     the roles: ports, programs, topics, user agents, and who is inside, in front or outside
rpc          nova's RPC methods: who sends them to whom, and where they name the servers that they are about
sql          the tables that tell a step, an owner or a state
rest         the paths of the APIs, and what they name
states       the states of a server
faults       the words in which the cloud says why

Tables and constants only, and look-ups in them: nothing here reads traffic, and nothing here knows a step.
"""
