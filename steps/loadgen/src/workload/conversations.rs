//! Which requests are turns of one conversation, and whether their prompts can be put together.

use std::collections::HashMap;

use super::Workload;
use crate::{Prompt, Request};

impl Workload {
    /// The positions of each conversation's requests, by turn, in the order in which conversations
    /// begin; a request that belongs to none is one by itself.
    #[must_use]
    pub fn conversations(&self) -> Vec<Vec<u64>> {
        conversations(&self.requests)
    }

    /// The share of all prompt tokens that a prefix cache without limits would hold if requests were
    /// sent in the workload's order and answers had the lengths asked for; `None` unless every
    /// request says how much of its own could be.
    #[must_use]
    pub fn ideal_cache_hit_rate(&self) -> Option<f64> {
        let (mut cacheable, mut prompt) = (0, 0);
        for conversation in self.conversations() {
            let mut history = 0;
            for at in conversation {
                let turn = &self.requests[at as usize];
                let before = if turn.continues { history } else { 0 };
                cacheable += before + u64::from(turn.cacheable_tokens?);
                prompt += before + u64::from(turn.input_tokens);
                history =
                    before + u64::from(turn.input_tokens) + u64::from(turn.output_tokens.get());
            }
        }
        (prompt > 0).then(|| cacheable as f64 / prompt as f64)
    }

    /// Whether prompts stand behind what was said before, so that what is sent depends on answers.
    #[must_use]
    pub fn continues(&self) -> bool {
        self.requests.iter().any(|request| request.continues)
    }
}

fn conversations(requests: &[Request]) -> Vec<Vec<u64>> {
    let mut known: HashMap<&str, usize> = HashMap::new();
    let mut all: Vec<Vec<(u32, u64)>> = Vec::new();
    for (at, request) in (0..).zip(requests) {
        let turn = (request.turn, at);
        match &request.conversation {
            None => all.push(vec![turn]),
            Some(name) => match known.get(name.as_str()) {
                Some(conversation) => all[*conversation].push(turn),
                None => {
                    known.insert(name, all.len());
                    all.push(vec![turn]);
                }
            },
        }
    }
    for conversation in &mut all {
        conversation.sort_unstable();
    }
    let requests = |turns: Vec<(u32, u64)>| turns.into_iter().map(|(_, at)| at).collect();
    all.into_iter().map(requests).collect()
}

/// The first turn, in the order of conversations, whose prompt cannot stand behind those before it,
/// and why.
pub(super) fn broken(requests: &[Request]) -> Option<(usize, String)> {
    if !requests.iter().any(|request| request.continues) {
        return None;
    }
    conversations(requests).iter().find_map(|conversation| {
        // Positions of requests in memory.
        let turns: Vec<usize> = conversation.iter().map(|at| *at as usize).collect();
        if !turns.iter().any(|at| requests[*at].continues) {
            return None;
        }
        let first = &requests[turns[0]];
        if first.continues {
            let problem = "the first turn of a conversation has nothing to continue".to_owned();
            return Some((turns[0], problem));
        }
        turns.windows(2).find_map(|pair| {
            let problem = misfit(&requests[pair[0]], &requests[pair[1]])?;
            Some((pair[1], problem))
        })
    })
}

fn misfit(before: &Request, turn: &Request) -> Option<String> {
    if before.turn == turn.turn {
        return Some(format!("turn {} is there twice", turn.turn));
    }
    if !turn.continues {
        return Some("other turns of its conversation continue it, this one does not".into());
    }
    let (then, now) = (kind(&before.prompt), kind(&turn.prompt));
    (then != now).then(|| format!("`{now}` cannot continue `{then}`"))
}

fn kind(prompt: &Prompt) -> &'static str {
    match prompt {
        Prompt::Text(_) => "text",
        Prompt::Tokens(_) => "input_ids",
        Prompt::Messages(_) => "messages",
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn turn(conversation: &str, turn: u32, continues: bool) -> Request {
        let id = format!("{conversation}{turn}");
        Request {
            conversation: Some(conversation.to_owned()),
            turn,
            continues,
            ..Request::new(id, Prompt::Text("x".into()), 1, NonZeroU32::MIN)
        }
    }

    #[test]
    fn conversations_are_in_the_order_in_which_they_begin_and_turns_by_number() {
        let alone = Request::new("z".into(), Prompt::Text("x".into()), 1, NonZeroU32::MIN);
        let requests = vec![
            turn("b", 1, false),
            alone,
            turn("a", 0, false),
            turn("b", 0, false),
        ];
        let workload = Workload::new(requests).unwrap();
        assert_eq!(workload.conversations(), [vec![3, 0], vec![1], vec![2]]);
        assert!(!workload.continues());
    }

    #[test]
    fn the_ideal_of_histories_is_everything_that_was_said_before() {
        // Five rounds of 512 tokens with answers of 64: of 8,320 prompt tokens 5,760 come again.
        let turns = (0..5).map(|round| Request {
            input_tokens: 512,
            cacheable_tokens: Some(0),
            output_tokens: NonZeroU32::new(64).unwrap(),
            ..turn("a", round, round > 0)
        });
        let mut turns: Vec<Request> = turns.collect();
        let ideal = |turns: &[Request]| {
            Workload::new(turns.to_vec())
                .unwrap()
                .ideal_cache_hit_rate()
        };
        assert_eq!(ideal(&turns), Some(5760.0 / 8320.0));
        turns[4].cacheable_tokens = Some(512);
        assert_eq!(ideal(&turns), Some(6272.0 / 8320.0));
        turns[0].cacheable_tokens = None;
        assert_eq!(ideal(&turns), None);
    }

    #[test]
    fn turns_that_cannot_follow_each_other_are_told() {
        let ids = Request {
            prompt: Prompt::Tokens(vec![1]),
            ..turn("a", 1, true)
        };
        for (second, expected) in [
            (turn("a", 0, true), "request 1 of the workload: turn 0"),
            (turn("a", 1, false), ""),
            (turn("a", 1, true), ""),
            (ids, "`input_ids` cannot continue `text`"),
        ] {
            let id = "second".to_owned();
            let requests = vec![turn("a", 0, false), Request { id, ..second }];
            let result = Workload::new(requests);
            let said = result.map_or_else(|e| e.to_string(), |_| String::new());
            assert!(
                said.contains(expected) && said.is_empty() == expected.is_empty(),
                "{said}"
            );
        }
        let lost = Workload::new(vec![turn("a", 3, true)]).unwrap_err();
        assert!(lost.to_string().contains("nothing to continue"), "{lost}");
        let mixed = [turn("a", 0, false), turn("a", 1, true), turn("a", 2, false)];
        let mixed = Workload::new(mixed.to_vec()).unwrap_err();
        assert!(mixed.to_string().contains("this one does not"), "{mixed}");
    }
}
