"""A network interface that is lent to a stack: its AF_XDP sockets, what steers packets to them, and where next hops are."""
