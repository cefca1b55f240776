//! The real ServerlessLLM store, on a machine without a GPU: what it makes of checkpoints that were converted here.

#[path = "../cuda/mod.rs"]
#[expect(dead_code, reason = "some of it is for tests of the driver")]
mod cuda;
mod with_real_sllm_store;
