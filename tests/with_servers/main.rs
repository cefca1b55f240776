//! The real binary with real servers: the quickstart whole, and servers that misbehave.

mod caching;
mod calibrating;
mod in_browser;
mod kills;
mod misbehaving;
mod multi_turn;
mod other_servers;
mod parts;
mod quickstart;
mod resetting;
mod scripted;
mod searching;
mod truth;
mod unhealthy;
mod world;
