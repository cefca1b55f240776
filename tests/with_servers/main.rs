//! The real binary with real servers: the quickstart whole, and servers that misbehave.

mod caching;
mod calibrating;
mod controlling;
mod environments;
mod held_to_the_truth;
mod in_browser;
mod kills;
mod known_servers;
mod misbehaving;
mod models;
mod multi_turn;
mod multimodel;
mod other_servers;
mod parts;
mod quickstart;
mod resetting;
mod scripted;
mod searching;
mod smoke;
mod truth;
mod twin;
mod unhealthy;
mod with_foreign_client;
mod with_real_servers;
mod world;
