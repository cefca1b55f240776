//! What was said in each conversation so far, where turns stand behind it.
//!
//! A history is in the form of the prompts: the server is given back exactly what it was asked and
//! what it answered. Of images it points at what was encoded before the run. Kept while a conversation has turns left, and bounded over all of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde_json::{Value, json};

use super::context::Job;
use crate::protocol::{Answer, Said, render_turn};
use crate::{Images, Outcome, Prompt, Record, Request, RunPlan};

/// The histories of all conversations of a run.
pub(super) struct Histories {
    /// The position of each conversation's last turn.
    last: Vec<u64>,
    all: Vec<Mutex<Option<History>>>,
    /// Bytes of all histories.
    bytes: AtomicU64,
}

/// What was said in one conversation before the turn that is under way.
struct History {
    said: Said,
    tokens: u32,
    bytes: u64,
}

impl Histories {
    /// Builds the histories of `plan`; `None` if no turn stands behind another.
    pub(super) fn of(plan: &RunPlan) -> Option<Self> {
        plan.workload.continues().then(|| {
            let conversations = plan.workload.conversations();
            let last: Vec<u64> = conversations
                .iter()
                .filter_map(|c| c.last())
                .copied()
                .collect();
            Self {
                all: last.iter().map(|_| Mutex::new(None)).collect(),
                last,
                bytes: AtomicU64::new(0),
            }
        })
    }

    /// The body of a turn, behind everything that was said before it.
    pub(super) fn render(
        &self,
        (plan, images): (&RunPlan, &Images),
        conversation: usize,
        turn: &Request,
    ) -> Bytes {
        let mut said = Said::of(&plan.target, turn, images);
        if let Some(history) = self
            .of_conversation(conversation)
            .as_ref()
            .filter(|_| turn.continues)
        {
            let own = std::mem::replace(&mut said, history.said.clone());
            said.push(own);
        }
        render_turn(&plan.target, turn, &said)
    }

    /// In which form an answer is to be kept.
    pub(super) fn form(&self, job: Job, turn: &Request) -> Answer {
        if self.last.get(job.conversation) == Some(&job.request) {
            return Answer::Unkept;
        }
        match turn.prompt {
            Prompt::Tokens(_) => Answer::Tokens(Vec::new()),
            Prompt::Text(_) | Prompt::Messages(_) => Answer::Text(String::new()),
        }
    }

    /// Tokens of what was said before a turn.
    pub(super) fn tokens(&self, conversation: usize, turn: &Request) -> u32 {
        let history = self.of_conversation(conversation);
        let history = history.as_ref().filter(|_| turn.continues);
        history.map_or(0, |history| history.tokens)
    }

    /// Adds a turn that is over and its answer to the history of its conversation; says why that
    /// cannot go on, if it cannot.
    pub(super) fn add(
        &self,
        (plan, images): (&RunPlan, &Images),
        job: Job,
        turn: &Request,
        record: &Record,
        answer: Answer,
    ) -> Result<(), String> {
        let mut history = self.of_conversation(job.conversation);
        let before = history.take();
        self.bytes
            .fetch_sub(before.as_ref().map_or(0, |h| h.bytes), Ordering::Relaxed);
        if self.last.get(job.conversation) == Some(&job.request) {
            return Ok(());
        }
        let own = Said::of(&plan.target, turn, images);
        let answer = in_form_of(&own.prompt, answered(answer, record)?);
        let mut bytes = size(&own.prompt) + size(&answer);
        let mut said = own;
        if let Some(before) = before.filter(|_| turn.continues) {
            bytes += before.bytes;
            let own = std::mem::replace(&mut said, before.said);
            said.push(own);
        }
        said.push(Said {
            prompt: answer,
            images: Vec::new(),
        });
        let limit = plan.limits.histories;
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > limit {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(format!(
                "the histories of all conversations are larger than {limit} bytes"
            ));
        }
        let answer_tokens = u32::try_from(record.answer_tokens()).unwrap_or(u32::MAX);
        *history = Some(History {
            said,
            tokens: record.input_tokens.saturating_add(answer_tokens),
            bytes,
        });
        Ok(())
    }

    fn of_conversation(&self, conversation: usize) -> MutexGuard<'_, Option<History>> {
        self.all[conversation]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer in the form of the prompt that it answers.
fn in_form_of(prompt: &Prompt, answer: Prompt) -> Prompt {
    match (prompt, answer) {
        (Prompt::Messages(_), Prompt::Text(text)) => {
            Prompt::Messages(vec![json!({ "role": "assistant", "content": text })])
        }
        (_, answer) => answer,
    }
}

/// The answer of a turn that was completed.
fn answered(answer: Answer, record: &Record) -> Result<Prompt, String> {
    let turn = record.turn;
    match (record.outcome, answer) {
        (Outcome::Completed, Answer::Text(text)) => Ok(Prompt::Text(text)),
        (Outcome::Completed, Answer::Tokens(ids)) => {
            let told = ids.len() as u64;
            let generated = record.answer_tokens();
            if told == generated {
                return Ok(Prompt::Tokens(ids));
            }
            Err(format!(
                "the server told {told} token ids of the {generated} tokens that it answered turn {turn} with; a workload of text needs none"
            ))
        }
        (Outcome::Completed, Answer::Unkept) => {
            Err(format!("the answer of turn {turn} was not kept"))
        }
        (outcome, _) => Err(format!(
            "turn {turn} of its conversation failed ({outcome})"
        )),
    }
}

/// About how much memory a part of a history takes.
fn size(said: &Prompt) -> u64 {
    let message = |message: &Value| message.to_string().len();
    let bytes = match said {
        Prompt::Text(text) => text.len(),
        Prompt::Tokens(ids) => size_of_val(ids.as_slice()),
        Prompt::Messages(messages) => messages.iter().map(message).sum(),
    };
    bytes as u64
}
