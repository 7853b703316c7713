"""What the API server adds between a client and a model host: `python -m bench api`.

    stub      a model host that answers at once, in a process of its own
    client    the load: closed and open loops over plain connections
    servers   starts what is measured, each held to its core, and reads what it used
    figures   one function for each figure
    slow      peers that read or send too slowly, beside streams that must not notice
    rounds    alternates, and keeps every round in a file
    report    the table, the JSON and the plots

Stub and load share one core and the server has the other to itself, so the hop is what is measured
and not the wire. Where other work shares the machine, figures by the server's own processor time
are the ones to trust.
"""
