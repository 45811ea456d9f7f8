"""What is known of an OpenStack cloud, as tables with their sources. Another release or vendor is rows here.

services     the roles: ports, programs, topics, user agents, and who is inside, in front or outside
rpc          nova's RPC methods: who sends them to whom, and where they name the servers that they are about
sql          the tables that tell a step, an owner or a state, and how the reads of the quota are known
rest         the paths of the APIs: whose they are, what they do and name, and which bodies are secret
states       the states of a server, and of a task of the VRM
faults       the fields and words in which the cloud says why

Each module has its rows first, and below them the look-ups that the stages ask, made of the rows at import: a
new row needs no code. Nothing here reads traffic, and nothing here knows a step: steps are in grammars/.
tests/test_where_knowledge_is.py holds that no other package names what stands here.
"""
