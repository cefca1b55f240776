//! The real binary as its users meet it: what it says, what it returns, what it leaves behind.

mod bad_plans;
mod caches;
mod coming_from;
mod commands;
mod composed;
mod cost;
mod downloads;
mod folder;
#[path = "../../steps/fetch/tests/hostile/mod.rs"]
mod hostile;
mod inputs;
mod loading;
mod locks;
mod new;
mod published;
mod runs;
mod schema;
mod short_names;
mod simulated;
mod videos;
mod with_ffmpeg;
mod with_sharegpt;
mod with_tokenizers;
