//! `server.reset` as a step of a plan: what it makes of the cached tokens that a server reports.

use crate::scripted::{Asked, Said, Scripted};
use crate::world::{Finished, World};
use serde_json::json;
use std::sync::atomic::{AtomicU64, Ordering};

const JSON: &str = "application/json";

/// What a server does when it is asked to empty its cache, and what it says of that.
#[derive(Clone, Copy)]
enum Cache {
    /// Empties it.
    Honest,
    /// Says that it has, and keeps everything.
    Lazy,
    /// Empties it and never says what was in it.
    Silent,
    /// Knows no way to empty it.
    Stuck,
}

impl Cache {
    fn answer(self, asked: &Asked, cached: &AtomicU64) -> Said {
        match asked.path.as_str() {
            "/flush_cache" => {
                if !matches!(self, Cache::Lazy) {
                    cached.store(0, Ordering::SeqCst);
                }
                let status = if matches!(self, Cache::Stuck) {
                    404
                } else {
                    200
                };
                (status, JSON, String::new())
            }
            "/v1/completions" => {
                let before = cached.swap(300, Ordering::SeqCst);
                let details = match self {
                    Cache::Silent => json!(null),
                    _ => json!({ "cached_tokens": before }),
                };
                let usage = json!({ "prompt_tokens": 301, "completion_tokens": 1, "prompt_tokens_details": details });
                (200, JSON, json!({ "usage": usage }).to_string())
            }
            _ => (404, JSON, String::new()),
        }
    }

    fn start(self) -> Scripted {
        let cached = AtomicU64::new(0);
        Scripted::start(move |asked| self.answer(asked, &cached))
    }
}

fn reset(world: &World, server: &Scripted, more: &str) -> Finished {
    let plan = world.plan(&format!(
        "[services.server]\n{}\n\n[steps.reset]\nuse = \"server.reset\"\nwith = {{ server = \"${{services.server}}\"{more} }}\n",
        server.service()
    ));
    let finished = world.run(&["run", plan.to_str().expect("a path")]);
    world.assert_nothing_left();
    finished
}

#[test]
fn a_cache_that_was_emptied_is_verified_and_left_empty() {
    let (world, server) = (World::new(), Cache::Honest.start());
    let finished = reset(&world, &server, ", verify = \"required\"");
    let said = finished.said();
    assert_eq!(finished.code(), 0, "{said}");
    let words = "emptied by `/flush_cache`: 300 cached tokens before, 0 after";
    assert!(said.contains(words), "{said}");
    // Filled and seen, emptied, seen to be empty, and emptied of that question.
    let asked = server.asked("/v1/completions");
    assert_eq!(asked.len(), 3);
    assert!(asked.iter().all(|a| a.body == asked[0].body), "{asked:?}");
    assert_eq!(asked[0].body["model"], "small");
    assert_eq!(server.asked("/flush_cache").len(), 2);
}

#[test]
fn a_cache_that_was_kept_fails_the_step_with_the_counts() {
    let (world, server) = (World::new(), Cache::Lazy.start());
    let finished = reset(&world, &server, "");
    let said = finished.said();
    assert_eq!(finished.code(), 1, "{said}");
    let words = "`/flush_cache` was answered, but 300 of 300 prompt tokens are still cached";
    assert!(said.contains(words), "{said}");
    assert!(said.contains("restart the server"), "{said}");
}

#[test]
fn without_counts_nothing_is_verified_and_that_is_said() {
    let (world, server) = (World::new(), Cache::Silent.start());
    let finished = reset(&world, &server, "");
    let said = finished.said();
    assert_eq!(finished.code(), 0, "{said}");
    let words = "the server reports no cached tokens, so that is not verified";
    assert!(said.contains(words), "{said}");
    let finished = reset(&world, &server, ", verify = \"required\"");
    let said = finished.said();
    assert_eq!(finished.code(), 1, "{said}");
    let words = "nobody can tell whether its cache is empty";
    assert!(said.contains(words), "{said}");
    assert!(said.contains("--enable-cache-report"), "{said}");
    let finished = reset(&world, &server, ", verify = \"no\"");
    let said = finished.said();
    assert_eq!(finished.code(), 0, "{said}");
    assert!(
        said.contains("emptied by `/flush_cache`, not verified"),
        "{said}"
    );
}

#[test]
fn a_server_that_knows_no_reset_fails_the_step() {
    let (world, server) = (World::new(), Cache::Stuck.start());
    let finished = reset(&world, &server, "");
    let said = finished.said();
    assert_eq!(finished.code(), 1, "{said}");
    let words = "the server knows none of `/flush_cache`, `/reset_prefix_cache`";
    assert!(said.contains(words), "{said}");
}
