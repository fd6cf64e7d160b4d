"""rebalancerd: keeps a plain libvirt/KVM cluster balanced by live migration."""

__version__ = "0.1.0"
