//! Workloads with images: questions about videos whose frames are there, through the whole path in made-up
//! time.

use super::folder::{Folder, Said};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// Two videos of three frames, of which one is the same in both, and two questions about each.
fn data(folder: &Folder) {
    let at = |name: &str| folder.path(&format!("nextqa/{name}"));
    for (video, frames) in [("7", ["a", "b", "c"]), ("8", ["a", "d", "e"])] {
        fs::create_dir_all(at(&format!("frames/{video}"))).expect("a folder");
        for (i, frame) in frames.iter().enumerate() {
            let bytes = [b"\x89PNG ", frame.as_bytes()].concat();
            fs::write(at(&format!("frames/{video}/{i}.png")), bytes).expect("a frame");
        }
    }
    fs::create_dir_all(at("OE")).expect("a folder");
    let questions = "video,frame_count,question,answer\n7,3,baba babe,x\n8,3,baba babi,x\n7,3,bobo,x\n8,3,bobu,x\n";
    fs::write(at("OE/test.csv"), questions).expect("questions");
}

fn plan(folder: &Folder, text: &str) {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("model_conf/qwen2.5-0.5b");
    let model = format!(
        r#"
[steps.model]
use = "model.derive"
with = {{ base = "{}", set = {{ num_hidden_layers = 2, vocab_size = 8192 }} }}
"#,
        base.display()
    );
    folder.plan("videos", &(model + text));
}

fn videos(more: &str) -> String {
    format!(
        r#"
[steps.videos]
use = "workload.nextqa"
with = {{ source = "nextqa", model = "${{steps.model.dir}}", image_tokens = 20, output_tokens = 4, shuffle = false, {more} }}
"#
    )
}

fn load(name: &str, workload: &str, more: &str) -> String {
    format!(
        r#"
[steps.{name}]
use = "load.simulate"
with = {{ server = {{ model = [{{ name = "m", model = "${{steps.model.dir}}" }}], device_profile = "l4", page_size = 1, image_tokens = 20, args = {{ executor = "sim" }} }}, workload = "${{steps.{workload}.workload}}", concurrency = 1, {more} }}
"#
    )
}

fn run(folder: &Folder) -> Said {
    folder.run(&["run", "videos.toml"])
}

fn ran(folder: &Folder) -> String {
    let said = run(folder);
    let all = format!("{}{}", said.out, said.err);
    assert_eq!(said.code, Some(0), "{all}");
    all
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).expect("a workload");
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

fn result(folder: &Folder, load: &str) -> Value {
    let path = folder.path(&format!("outputs/latest/results/{load}/0/result.json"));
    let text = fs::read_to_string(path).expect("a result");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn hits_are_the_ideal_to_the_token_and_results_say_that_no_image_was_looked_at() {
    let folder = Folder::new();
    data(&folder);
    let about = videos("conversations = 2, questions = \"shared_prefix\"");
    // What is read and written again keeps its images.
    let again = r#"
[steps.again]
use = "dataset.file"
with = { path = "${steps.videos.workload}" }

[steps.timed]
use = "workload.schedule"
with = { workload = "${steps.again.workload}", request_rate = 2 }
"#;
    let text = about
        + again
        + &load("own", "timed", "protocol = \"sglang\"")
        + &load("chat", "videos", "protocol = \"chat\"");
    plan(&folder, &text);
    let said = ran(&folder);
    assert!(
        said.contains("5 frames out of 2 folders, as they are"),
        "{said}"
    );
    let made = folder.path("outputs/latest/results/videos/workload");
    let requests = lines(&made.join("workload.jsonl"));
    // Frames of 20 tokens and two words, of which one has a mark behind it.
    assert_eq!(requests[0]["group"], "nextqa-7");
    assert_eq!(requests[0]["text"], "baba babe?");
    let images = |at: usize| requests[at]["images"].as_array().expect("images").clone();
    assert_eq!((images(0), images(2)), (images(1), images(3)));
    assert_eq!(images(0)[0], images(2)[0]);
    assert_ne!(images(0)[1], images(2)[1]);
    assert_eq!(
        fs::read_dir(made.join("images")).expect("images").count(),
        5
    );
    let cacheable: Vec<_> = requests
        .iter()
        .map(|r| r["cacheable_tokens"].as_u64())
        .collect();
    // The second video begins with the frame that the first begins with.
    assert_eq!(cacheable, [Some(0), Some(60), Some(20), Some(60)]);
    for load in ["own", "chat"] {
        let result = result(&folder, load);
        let values = &result["rows"][0]["values"];
        assert_eq!(values["completed"], 4.0, "{result}");
        let simulated = result["target"]["server.simulated"].as_str().expect("how");
        let expected = "images stand for 20 tokens each, no image was looked at";
        assert!(simulated.contains(expected), "{simulated}");
        let notes = result["notes"].to_string();
        assert!(
            notes.contains("5 images were encoded before the load"),
            "{notes}"
        );
    }
    let own = result(&folder, "own");
    let values = &own["rows"][0]["values"];
    let share = |name: &str| values[name].as_f64().expect("a share");
    let difference = share("cache_hit_rate") - share("cache_hit_rate_ideal");
    assert!(
        difference.abs() < 1e-9 && share("cache_hit_rate") > 0.5,
        "{values}"
    );
}

#[test]
fn a_conversation_shows_its_frames_once_and_keeps_them_in_its_history() {
    let folder = Folder::new();
    data(&folder);
    let text = videos("conversations = 2, questions = \"multi_turn\", frames = 2")
        + &load("turns", "videos", "protocol = \"chat\", sessions = true");
    plan(&folder, &text);
    ran(&folder);
    let made = folder.path("outputs/latest/results/videos/workload/workload.jsonl");
    let requests = lines(&made);
    let told: Vec<_> = requests
        .iter()
        .map(|r| (r["id"].as_str(), r["images"].as_array().map(Vec::len)))
        .collect();
    let expected = [
        (Some("nextqa-7-0"), Some(2)),
        (Some("nextqa-8-0"), Some(2)),
        (Some("nextqa-7-1"), None),
        (Some("nextqa-8-1"), None),
    ];
    assert_eq!(told, expected);
    let result = result(&folder, "turns");
    let values = &result["rows"][0]["values"];
    assert_eq!(values["completed"], 4.0, "{result}");
    // Of second turns everything that was said and shown before is there but the answer's last token.
    let hits = values["cache_hit_rate"].as_f64().expect("a share");
    let ideal = values["cache_hit_rate_ideal"].as_f64().expect("a share");
    assert!(
        (hits - ideal).abs() < 0.1 && hits > 0.4,
        "{hits} against {ideal}"
    );
}

#[test]
fn a_missing_or_damaged_video_is_named_and_left_out_only_when_asked() {
    let folder = Folder::new();
    data(&folder);
    let more = "9,3,bobo,x\n10,3,bobo,x\n";
    let path = folder.path("nextqa/OE/test.csv");
    let text = fs::read_to_string(&path).expect("questions") + more;
    fs::write(&path, text).expect("questions");
    fs::create_dir_all(folder.path("nextqa/frames/10")).expect("a folder");
    fs::write(folder.path("nextqa/frames/10/0.png"), "text").expect("a file");
    plan(&folder, &videos("conversations = 6"));
    let refused = run(&folder);
    let all = format!("{}{}", refused.out, refused.err);
    assert_eq!(refused.code, Some(1), "{all}");
    assert!(all.contains("video `10`: `0.png` is no PNG"), "{all}");
    assert!(all.contains("damaged = \"recover\""), "{all}");
    plan(&folder, &videos("conversations = 6, damaged = \"recover\""));
    let said = ran(&folder);
    assert!(said.contains("only 4 pass, so 2 are there again"), "{said}");
    assert!(
        said.contains("2 videos left out, the first: video `10`"),
        "{said}"
    );
}

#[test]
fn who_cannot_be_shown_images_is_told_with_the_step() {
    let folder = Folder::new();
    data(&folder);
    let text = videos("conversations = 1") + &load("plain", "videos", "protocol = \"completions\"");
    plan(&folder, &text);
    let refused = run(&folder);
    let all = format!("{}{}", refused.out, refused.err);
    assert_eq!(refused.code, Some(1), "{all}");
    assert!(all.contains("plain"), "{all}");
    let expected = "a prompt of text with images, which the completions protocol cannot send";
    assert!(all.contains(expected), "{all}");
    assert!(all.contains("use the chat or the sglang protocol"), "{all}");
}
