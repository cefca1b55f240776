//! Counts against figures that were published or computed by hand, and what has to hold for every model
//! that ships.

use cost::{
    Bound, Bytes, Class, Counted, Deployment, Device, Executed, Formats, Model, Peak, Phase,
    Precision, Seconds, Utilisation, WeightFormat, Work, count, suite,
};
use serde_json::{Map, Value};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../model_conf")
}

fn config(name: &str) -> Map<String, Value> {
    let path = folder().join(name).join("config_full.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn model(name: &str) -> Model {
    Model::of(&config(name)).unwrap_or_else(|problem| panic!("{name}: {problem}"))
}

fn n(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("not zero")
}

fn work(phase: Phase, batch: u32, length: u32) -> Work {
    Work {
        phase,
        batch: n(batch),
        length: n(length),
    }
}

const BF16: Formats = Formats {
    weights: WeightFormat::Configured,
    kv_bytes: 2.0,
};

fn counted(model: &Model, work: &Work, deployment: &Deployment) -> Counted {
    deployment.fits(model).unwrap_or_else(|e| panic!("{e}"));
    count(model, work, &Executed::only(work), deployment, &BF16)
}

fn spread(tp: u32, ep: u32, dp: u32) -> Deployment {
    Deployment {
        tp: n(tp),
        ep: n(ep),
        dp: n(dp),
    }
}

fn near(found: f64, wanted: f64, share: f64) {
    assert!(
        (found / wanted - 1.0).abs() <= share,
        "{found} for {wanted}"
    );
}

fn h100() -> Peak {
    let device = Device::find("NVIDIA H100 80GB HBM3").expect("known");
    let flops = device.flops(Precision::Bf16).expect("has bf16");
    Peak {
        projections: flops,
        others: flops,
        bandwidth: device.bandwidth(),
    }
}

#[test]
fn parameters_are_the_published_ones() {
    for (name, total, active) in [
        ("llama-3.1-8b", 8.030e9, 8.030e9),
        ("qwen3-30b-a3b", 30.532e9, 3.353e9),
        ("deepseek-v3", 671.025e9, 37.551e9),
    ] {
        let model = model(name);
        near(model.total_parameters() as f64, total, 2e-4);
        near(model.active_parameters() as f64, active, 2e-4);
    }
}

#[test]
fn every_model_that_ships_is_counted_as_its_inventory_is() {
    let folders = std::fs::read_dir(folder()).unwrap();
    let names = folders.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut n_models = 0;
    for name in names {
        let config = config(&name);
        let inventory = models::Inventory::of(&config).unwrap();
        let model = Model::of(&config).unwrap();
        assert_eq!(model.total_parameters(), inventory.parameters(), "{name}");
        assert_eq!(
            model.active_parameters(),
            inventory.active_parameters(),
            "{name}"
        );
        let (short, long) = (
            counted(&model, &work(Phase::Prefill, 1, 128), &Deployment::SINGLE),
            counted(&model, &work(Phase::Prefill, 1, 256), &Deployment::SINGLE),
        );
        // Twice the tokens: twice the linear part, and more than that of the scores.
        let linear = |c: &Counted| c.useful.get(Class::Mlp) + c.useful.get(Class::Attention);
        near(linear(&long).0, 2.0 * linear(&short).0, 1e-12);
        let scores = |c: &Counted| c.useful.get(Class::Scores).0;
        near(
            scores(&long),
            256.0 * 257.0 / (128.0 * 129.0) * scores(&short),
            1e-12,
        );
        n_models += 1;
    }
    assert_eq!(n_models, 19);
}

#[test]
fn classes_of_llama_are_those_of_its_shape() {
    // d = 4096, L = 32, H = 32, K = 8, h = 128, f = 14336, V = 128256.
    let model = model("llama-3.1-8b");
    let of = |class| model.parameters.get(class);
    assert_eq!(
        of(Class::Attention),
        32 * (2 * 4096 * 4096 + 2 * 4096 * 1024)
    );
    assert_eq!(of(Class::Mlp), 32 * 3 * 4096 * 14336);
    assert_eq!(of(Class::Embedding), 128_256 * 4096);
    assert_eq!(of(Class::Head), 128_256 * 4096);
    assert_eq!(of(Class::Other), 65 * 4096);
    assert_eq!(of(Class::Experts) + of(Class::Router), 0);
}

#[test]
fn a_layer_of_deepseek_is_that_of_the_formula() {
    let model = model("deepseek-v3");
    // d·r_q + r_q·H·(d_n + d_r) + d·(r_kv + d_r) + r_kv·H·(d_n + d_v) + H·d_v·d
    let attention =
        7168 * 1536 + 1536 * 128 * 192 + 7168 * 576 + 512 * 128 * 256 + 128 * 128 * 7168;
    assert_eq!(model.parameters.get(Class::Attention), 61 * attention);
    let expert = 3 * 7168 * 2048;
    assert_eq!(model.n_expert_layers, 58);
    assert_eq!(model.parameters.get(Class::Experts), 58 * 256 * expert);
    assert_eq!(model.parameters.get(Class::SharedExperts), 58 * expert);
    assert_eq!(model.parameters.get(Class::Router), 58 * 7168 * 256);
    assert_eq!(model.parameters.get(Class::Mlp), 3 * 3 * 7168 * 18432);
}

#[test]
fn a_long_prompt_of_llama_is_bound_by_compute_on_an_h100() {
    let model = model("llama-3.1-8b");
    let counted = counted(&model, &work(Phase::Prefill, 1, 2048), &Deployment::SINGLE);
    let total = counted.useful.total();
    near(total.0, 29.7e12, 0.002);
    near(counted.useful.get(Class::Scores).0 / total.0, 0.037, 0.01);
    let bound = Bound::of(&counted, &h100());
    near(bound.time().0, 30.0e-3, 0.002);
    assert_eq!(bound.limit().name(), "compute");
    // Norms, and the head of one token, wait for memory meanwhile.
    assert!(bound.by_class.0 > bound.time().0);
}

#[test]
fn a_decode_step_of_llama_is_bound_by_memory_on_an_h100() {
    let model = model("llama-3.1-8b");
    let counted = counted(&model, &work(Phase::Decode, 64, 2048), &Deployment::SINGLE);
    near(counted.rank_bytes().0, 32.2e9, 0.002);
    let bound = Bound::of(&counted, &h100());
    near(bound.time().0, 9.6e-3, 0.005);
    assert_eq!(bound.limit().name(), "memory");
}

#[test]
fn utilisation_is_the_share_of_the_peaks() {
    let model = model("llama-3.1-8b");
    let counted = counted(&model, &work(Phase::Decode, 64, 2048), &Deployment::SINGLE);
    let (peak, time) = (h100(), Seconds(20e-3));
    let found = Utilisation::of(&counted, &peak, 1, time);
    near(
        found.bandwidth,
        counted.rank_bytes().0 / 20e-3 / 3350e9,
        1e-12,
    );
    near(found.of_bound, found.bandwidth, 1e-12);
    near(
        found.useful_mfu,
        counted.useful.total().0 / 20e-3 / 989.4e12,
        1e-12,
    );
    near(found.executed_mfu, found.useful_mfu, 1e-12);
    // Every class waits for memory here.
    near(found.of_bound_by_class, found.of_bound, 1e-12);
}

#[test]
fn expected_experts_are_those_of_the_table() {
    let model = model("qwen3-30b-a3b");
    for (tokens, experts) in [(1.0, 8.0), (8.0, 51.6), (64.0, 126.0)] {
        near(model.expected_experts(tokens), experts, 0.002);
    }
    // What decode reads of the experts grows with the batch until all are hit.
    let bytes = |batch| {
        let work = work(Phase::Decode, batch, 128);
        let counted = counted(&model, &work, &Deployment::SINGLE);
        counted.rank.get(Class::Experts).bytes.0
    };
    near(bytes(1) * 51.6 / 8.0, bytes(8), 1e-3);
    let all = model.weight_bytes(Class::Experts, WeightFormat::Configured);
    near(bytes(4096), all.0, 1e-9);
}

#[test]
fn the_cache_keeps_of_a_token_what_heads_or_latent_vectors_need() {
    for (name, bytes) in [
        ("llama-2-7b", 2 * 32 * 32 * 128 * 2),
        ("llama-3.1-8b", 2 * 8 * 128 * 32 * 2),
        ("qwen3-30b-a3b", 2 * 4 * 128 * 48 * 2),
        ("deepseek-v3", (512 + 64) * 61 * 2),
        ("falcon-40b", 2 * 8 * 64 * 60 * 2),
        ("gpt-3-175b", 2 * 12288 * 96 * 2),
    ] {
        assert_eq!(
            model(name).kv_bytes_per_token(2.0),
            Bytes(f64::from(bytes)),
            "{name}"
        );
    }
}

#[test]
fn latent_attention_costs_more_a_pair_where_it_is_not_expanded() {
    let model = model("deepseek-v3");
    let decode = counted(&model, &work(Phase::Decode, 1, 999), &Deployment::SINGLE);
    let scores = 2.0 * 128.0 * (2.0 * 512.0 + 64.0) * 1000.0 * 61.0;
    near(decode.useful.get(Class::Scores).0, scores, 1e-12);
    let prefill = counted(&model, &work(Phase::Prefill, 1, 1000), &Deployment::SINGLE);
    let scores = 2.0 * 128.0 * (128.0 + 64.0 + 128.0) * 500_500.0 * 61.0;
    near(prefill.useful.get(Class::Scores).0, scores, 1e-12);
    // What is absorbed costs as much as the matrix it stands for, so that a token costs the same.
    let linear = |c: &Counted| c.useful.get(Class::Attention).0;
    near(linear(&prefill), 1000.0 * linear(&decode), 1e-12);
}

#[test]
fn a_window_cuts_off_what_lies_before_it() {
    let mut config = config("mistral-7b");
    config.insert("sliding_window".to_owned(), 4096.into());
    let model = Model::of(&config).expect("sound");
    let window = model.shape.window.expect("all layers have it").tokens;
    let far = work(Phase::Decode, 1, 4 * u32::try_from(window).expect("small"));
    let counted = counted(&model, &far, &Deployment::SINGLE);
    let token = 2.0 * 8.0 * 128.0 * 2.0;
    assert_eq!(counted.kv_read.0, 32.0 * window as f64 * token);
    assert_eq!(counted.kv_written.0, 32.0 * token);
}

#[test]
fn ranks_share_the_work_and_repeat_what_does_not_divide() {
    let model = model("llama-3.1-8b");
    let decode = work(Phase::Decode, 16, 1024);
    let one = counted(&model, &decode, &Deployment::SINGLE);
    let eight = counted(&model, &decode, &spread(8, 1, 1));
    near(eight.executed.0, one.executed.0, 1e-9);
    near(eight.kv_read.0, one.kv_read.0 / 8.0, 1e-12);
    assert_eq!(one.bytes_sent, Bytes(0.0));
    // Two sums a layer and one of the embedding, of 16 tokens of 4096 in two bytes, around a ring; then
    // logits.
    let sums = 65.0 * 2.0 * 16.0 * 8192.0 * 7.0 / 8.0;
    let logits = 16.0 * 128_256.0 * 2.0 * 7.0 / 8.0;
    near(eight.bytes_sent.0, sums + logits, 1e-12);
    // Eight heads of keys over 16 ranks: each stands on two, with its projections and its cache.
    let sixteen = counted(&model, &decode, &spread(16, 1, 1));
    near(sixteen.kv_read.0, eight.kv_read.0, 1e-12);
    let keys = 2.0 * 2.0 * 16.0 * 32.0 * 4096.0 * 1024.0;
    near(sixteen.executed.0 - one.executed.0, keys, 1e-9);
    near(sixteen.useful.total().0, one.useful.total().0, 1e-12);
}

#[test]
fn latent_vectors_stand_on_every_rank_unless_sequences_are_spread() {
    let model = model("deepseek-v3");
    let decode = work(Phase::Decode, 64, 1024);
    let one = counted(&model, &decode, &Deployment::SINGLE);
    let tensor = counted(&model, &decode, &spread(8, 8, 1));
    assert_eq!(tensor.kv_read, one.kv_read);
    let data = counted(&model, &decode, &spread(8, 8, 8));
    near(data.kv_read.0, one.kv_read.0 / 8.0, 1e-12);
    // With sequences spread, attention is repeated in weights and in no operation.
    let attention = |c: &Counted| c.rank.get(Class::Attention);
    assert_eq!(attention(&data).bytes, attention(&one).bytes);
    near(
        attention(&data).flops.0,
        attention(&one).flops.0 / 8.0,
        1e-12,
    );
    near(
        data.rank.get(Class::Experts).bytes.0,
        one.rank.get(Class::Experts).bytes.0 / 8.0,
        1e-12,
    );
}

#[test]
fn fp8_weights_are_counted_with_their_scales() {
    let model = model("deepseek-v3");
    assert!(model.is_fp8());
    let projections = model.parameters.get(Class::Experts) as f64;
    let bytes = model.weight_bytes(Class::Experts, WeightFormat::Configured);
    near(bytes.0, projections * (1.0 + 4.0 / 16384.0), 1e-9);
    let plain = WeightFormat::Plain(Precision::Bf16);
    assert_eq!(
        model.weight_bytes(Class::Experts, plain).0,
        projections * 2.0
    );
    let llama = self::model("llama-3.1-8b");
    let mlp = llama.parameters.get(Class::Mlp) as f64;
    near(
        llama.weight_bytes(Class::Mlp, WeightFormat::Fp8Blocks).0,
        mlp * (1.0 + 4.0 / 16384.0),
        1e-12,
    );
    near(
        llama.weight_bytes(Class::Mlp, WeightFormat::Int4Groups).0,
        mlp * 0.519_531_25,
        1e-12,
    );
    // Heads and embeddings stay as they are.
    let head = llama.weight_bytes(Class::Head, WeightFormat::Fp8Blocks);
    assert_eq!(
        head,
        llama.weight_bytes(Class::Head, WeightFormat::Configured)
    );
}

#[test]
fn a_tied_head_is_read_and_multiplied_and_no_parameter() {
    let model = model("qwen2.5-0.5b");
    assert_eq!(model.parameters.get(Class::Head), 0);
    let counted = counted(&model, &work(Phase::Decode, 3, 10), &Deployment::SINGLE);
    let elements = 151_936.0 * 896.0;
    near(
        counted.useful.get(Class::Head).0,
        3.0 * 2.0 * elements,
        1e-12,
    );
    near(counted.rank.get(Class::Head).bytes.0, 2.0 * elements, 1e-12);
}

#[test]
fn what_is_done_besides_is_executed_and_not_useful() {
    let model = model("llama-3.1-8b");
    let prefill = work(Phase::Prefill, 2, 512);
    let mut executed = Executed::only(&prefill);
    executed.logits = cost::Logits::All;
    executed.pairs = cost::Pairs::All;
    let found = count(&model, &prefill, &executed, &Deployment::SINGLE, &BF16);
    let least = counted(&model, &prefill, &Deployment::SINGLE);
    assert_eq!(found.useful, least.useful);
    let logits = 2.0 * 128_256.0 * 4096.0 * 2.0 * 511.0;
    let pairs = 4.0 * 4096.0 * 32.0 * 2.0 * (512.0 * 512.0 - 512.0 * 513.0 / 2.0);
    near(found.executed.0 - least.executed.0, logits + pairs, 1e-9);
    // A batch of three in a graph of four.
    let decode = work(Phase::Decode, 3, 100);
    let mut executed = Executed::only(&decode);
    executed.batch = n(4);
    let found = count(&model, &decode, &executed, &Deployment::SINGLE, &BF16);
    let least = counted(&model, &decode, &Deployment::SINGLE);
    let mlp = |c: &Counted| c.rank.get(Class::Mlp).flops.0;
    near(mlp(&found), mlp(&least) * 4.0 / 3.0, 1e-12);
    assert_eq!(found.kv_read, least.kv_read);
}

#[test]
fn the_suite_counts_every_token_at_the_head_and_half_of_decode_s_scores() {
    let model = model("llama-3.1-8b");
    let prefill = work(Phase::Prefill, 2, 2048);
    let ours = counted(&model, &prefill, &Deployment::SINGLE);
    // Per sequence: 2047 tokens more at the head; s² for s(s+1)/2 · 2 pairs; one product a gate.
    let head = 2.0 * 4096.0 * 128_256.0 * 2047.0;
    let scores =
        -4.0 * 4096.0 * 32.0 * (2048.0 * 2049.0 / 2.0) + 2.0 * 2048.0 * 2048.0 * 4096.0 * 32.0;
    let gates = 32.0 * 14336.0 * 2048.0;
    let expected = ours.useful.total().0 + 2.0 * (head + scores + gates);
    near(suite::flops(&model, &prefill).0, expected, 1e-12);
    let decode = work(Phase::Decode, 1, 2048);
    let ours = counted(&model, &decode, &Deployment::SINGLE);
    let scores = 4.0 * 4096.0 * 32.0 * 2049.0 - 2.0 * 4096.0 * 32.0 * 2048.0;
    let expected = ours.useful.total().0 - scores + 32.0 * 14336.0;
    near(suite::flops(&model, &decode).0, expected, 1e-12);
}

#[test]
fn the_suite_s_formula_for_deepseek_is_that_of_its_description() {
    let model = model("deepseek-v3");
    let tokens = 16.0;
    let gemm = |n: f64, k: f64| 2.0 * tokens * n * k;
    let hidden = 7168.0;
    let attention = gemm(hidden, 1536.0 + 512.0 + 64.0)
        + gemm(1536.0, 128.0 * 192.0)
        + gemm(512.0, 128.0 * 256.0)
        + gemm(128.0 * 128.0, hidden)
        + gemm(tokens, 128.0 * (2.0 * 128.0 + 64.0));
    let perceptron = |inner: f64| gemm(hidden, 2.0 * inner) + gemm(inner, hidden) + tokens * inner;
    let moe = gemm(hidden, 256.0) + 9.0 * perceptron(2048.0);
    let all = 61.0 * attention + 58.0 * moe + 3.0 * perceptron(18432.0) + gemm(hidden, 129_280.0);
    near(
        suite::flops(&model, &work(Phase::Prefill, 1, 16)).0,
        all,
        1e-12,
    );
    let h200 = Device::find("NVIDIA H200")
        .expect("known")
        .flops(Precision::Bf16)
        .expect("bf16");
    let mfu = suite::mfu(&model, &work(Phase::Prefill, 4, 16), 8, h200, Seconds(2e-3));
    near(mfu, 4.0 * all / (989.5e12 * 8.0) / 2e-3, 1e-12);
}

#[test]
fn the_suite_counts_embedding_and_head_as_two() {
    let ours = model("qwen2.5-0.5b");
    let matrices = ours.parameters.get(Class::Attention) + ours.parameters.get(Class::Mlp);
    assert_eq!(suite::parameters(&ours), matrices + 2 * 151_936 * 896);
}

#[test]
fn what_does_not_divide_is_named_with_a_mend() {
    let told = |name: &str, deployment: Deployment| {
        let unfit = deployment.fits(&model(name)).expect_err("does not fit");
        (unfit.message, unfit.help)
    };
    assert_eq!(
        told("llama-3.1-8b", spread(3, 1, 1)),
        (
            "`tp` is 3, which does not divide the 32 heads of queries".to_owned(),
            "choose a divisor of 32".to_owned()
        )
    );
    assert_eq!(
        told("llama-3.1-8b", spread(4, 2, 1)).0,
        "`ep` is 2, and the model has no experts"
    );
    assert_eq!(
        told("qwen3-30b-a3b", spread(8, 3, 1)).0,
        "`ep` is 3, which does not divide the 8 ranks of `tp`"
    );
    assert_eq!(
        told("qwen2.5-0.5b", spread(14, 1, 4)).0,
        "`dp` is 4, which does not divide the 14 ranks of `tp`"
    );
    assert_eq!(
        told("qwen2.5-0.5b", spread(7, 1, 1)).0,
        "`tp` is 7, and 2 heads of keys can neither be spread nor repeated evenly over it"
    );
    assert_eq!(
        told("qwen3-30b-a3b", spread(5, 1, 5)).0,
        "`tp / ep` is 5, which does not divide the 768 columns of `experts`"
    );
}

#[test]
fn a_configuration_that_cannot_be_counted_is_refused_by_its_key() {
    let without = |key: &str| {
        let mut config = config("deepseek-v3");
        config.remove(key);
        Model::of(&config).expect_err("not whole").keys
    };
    for key in [
        "kv_lora_rank",
        "num_attention_heads",
        "num_experts_per_tok",
        "vocab_size",
    ] {
        assert_eq!(without(key), [key]);
    }
    let mut config = config("llama-3.1-8b");
    config.insert("model_type".to_owned(), "mamba".into());
    config.insert(
        "architectures".to_owned(),
        serde_json::json!(["MambaForCausalLM"]),
    );
    let told = Model::of(&config).expect_err("not known").to_string();
    assert!(
        told.contains("`mamba`, whose weights are not known"),
        "{told}"
    );
}
