"""Rulesets as firewalld, ufw, Docker and others make them, in nft's own words, shortened to what packets on lo may come to."""

from __future__ import annotations

FIREWALLD = """
table inet firewalld {
  chain mangle_PREROUTING { type filter hook prerouting priority -140; policy accept; jump mangle_PREROUTING_ZONES; }
  chain mangle_PREROUTING_ZONES { iifname "eth0" goto mangle_PRE_public; goto mangle_PRE_public; }
  chain mangle_PRE_public { jump mangle_PRE_public_allow; }
  chain mangle_PRE_public_allow { }
  chain nat_PREROUTING { type nat hook prerouting priority -90; policy accept; }
  chain nat_POSTROUTING { type nat hook postrouting priority 110; policy accept; oifname != "lo" masquerade; }
  chain filter_PREROUTING {
    type filter hook prerouting priority 10; policy accept;
    icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept
    meta nfproto ipv6 iifname "eth0" ip6 hoplimit 1 drop
  }
  chain filter_INPUT {
    type filter hook input priority 10; policy accept;
    ct state { established, related } accept
    ct status dnat accept
    iifname "lo" accept
    ct state invalid drop
    jump filter_INPUT_ZONES
    reject with icmpx admin-prohibited
  }
  chain filter_FORWARD {
    type filter hook forward priority 10; policy accept;
    ct state { established, related } accept
    reject with icmpx admin-prohibited
  }
  chain filter_OUTPUT {
    type filter hook output priority 10; policy accept;
    ct state { established, related } accept
    oifname "lo" accept
    ip6 daddr { ::/96, ::ffff:0.0.0.0/96 } reject with icmpv6 addr-unreachable
  }
  chain filter_INPUT_ZONES { iifname "eth0" goto filter_IN_public; goto filter_IN_public; }
  chain filter_IN_public { tcp dport 22 ct state { new, untracked } accept; }
}
"""

UFW = """
table ip filter {
  chain INPUT { type filter hook input priority 0; policy drop; jump before-input; jump user-input; jump reject-input; }
  chain OUTPUT { type filter hook output priority 0; policy accept; jump before-output; }
  chain before-input {
    iifname "lo" counter accept
    ct state related,established counter accept
    ct state invalid counter jump log-deny
    ct state invalid counter drop
    jump not-local
  }
  chain before-output { oifname "lo" counter accept; ct state related,established counter accept; }
  chain not-local { limit rate 3/minute burst 10 packets jump log-deny; counter drop; }
  chain log-deny { limit rate 3/minute burst 10 packets log prefix "[BLOCK] "; }
  chain user-input { tcp dport 22 counter accept; }
  chain reject-input { reject; }
}
"""

DOCKER = """
table ip raw {
  chain PREROUTING { type filter hook prerouting priority -300; policy accept; iifname != "docker0" ip daddr 172.17.0.2 counter drop; }
}
table ip nat {
  chain DOCKER { iifname "docker0" counter return; iifname != "docker0" tcp dport 8080 counter dnat to 172.17.0.2:80; }
  chain PREROUTING { type nat hook prerouting priority -100; policy accept; fib daddr type local counter jump DOCKER; }
  chain OUTPUT { type nat hook output priority -100; policy accept; ip daddr != 127.0.0.0/8 fib daddr type local counter jump DOCKER; }
  chain POSTROUTING { type nat hook postrouting priority 100; policy accept; ip saddr 172.17.0.0/16 oifname != "docker0" masquerade; }
}
table ip filter {
  chain FORWARD { type filter hook forward priority 0; policy drop; jump USER; oifname "docker0" ct state related,established accept; }
  chain USER { counter return; }
}
"""

LIBVIRT = """
table ip filter {
  chain IN { iifname "virbr0" udp dport 53 counter accept; iifname "virbr0" tcp dport 67 counter accept; }
  chain INPUT { type filter hook input priority 0; policy accept; counter jump IN; }
  chain FORWARD { type filter hook forward priority 0; policy accept; iifname "virbr0" counter reject; }
  chain OUTPUT { type filter hook output priority 0; policy accept; oifname "virbr0" udp dport 68 counter accept; }
}
table ip mangle {
  chain POSTROUTING { type filter hook postrouting priority -150; policy accept; oifname "virbr0" udp dport 68 counter meta mark set 1; }
}
"""

PLAIN = """
table inet filter {
  set addresses { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 192.168.0.0-192.168.3.255 }; }
  chain input {
    type filter hook input priority 0; policy drop;
    ct state vmap { established : accept, related : accept, invalid : drop }
    iif "lo" accept
    ip saddr @addresses tcp dport { 22, 443 } accept
    limit rate 5/second reject
  }
  chain once { type filter hook output priority 0;
    tcp flags & (fin|syn|rst|ack) == syn tcp option maxseg size set 1200
    meta l4proto tcp ct state new log prefix "new"
  }
}
"""

HARMLESS = {"firewalld": FIREWALLD, "ufw": UFW, "Docker": DOCKER, "libvirt": LIBVIRT, "a plain one": PLAIN, "none": ""}
