//! The provider simulator: every dialect on real sockets, with real quotas and scripted faults.
