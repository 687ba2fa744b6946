//! The TPM through libtss2: import, seal policy, node key.
