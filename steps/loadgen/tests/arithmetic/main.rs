//! The views of vLLM's and of SGLang's results beside what those tools' own code computes.
//!
//! Random answers are played, byte by byte and instant by instant, to the clients of both; see
//! `peers.py`. Every number that a view shares with the tool's result must be the same.

mod with_peers_code;
