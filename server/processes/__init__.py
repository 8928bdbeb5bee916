"""Several complete servers on one port: `pairwire serve --processes N`.

    supervisor.py  starts them, restarts what dies, drains, adds up their metrics; imports nothing heavy
    child.py       one of them, as the supervisor sees it
    __main__.py    one of them, as it runs
    messages.py    what the two tell each other, over a socket that also tells when one of them has gone
    shares.py      which CPUs are whose
    port.py        the one port: reserved before anybody listens, and refused where a stranger has it
    devices.py     which GPU is whose
    backoff.py     how long to wait before the next start
    totals.py      metrics of all, added up

They are processes of their own (exec, no fork), and share nothing but the port: the kernel hands each new connection to
one of those that listen.
"""
