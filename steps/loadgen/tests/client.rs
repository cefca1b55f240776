//! The load generator against a server that misbehaves in every way a real one does.
//! Nothing here depends on how long anything takes.

mod conversations;
mod http2;
mod server;
mod tls;

use std::{
    future::pending,
    net::TcpListener,
    num::{NonZeroU32, NonZeroU64},
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use loadgen::{
    Arrivals, Class, Ended, EventTime, Limits, Load, Metrics, NoObserver, Observer, ObserverError,
    Outcome, Process, Progress, Prompt, Protocol, Rate, Record, Request, Reuse, Rounds, Run,
    RunError, RunPlan, Secret, Stop, Target, Workload, run,
};
use server::{DONE, FINISH, HEAD, Server, Then, USAGE, chunk, good, piece, until_closed, write};

/// `n` requests for two tokens each, from one user, with timeouts that nothing reaches.
fn plan(address: impl std::fmt::Display, n: u32) -> RunPlan {
    let request = |i: u32| {
        let prompt = Prompt::Tokens(vec![1, 2, i]);
        let request = Request::new(format!("r{i}"), prompt, 3, NonZeroU32::new(2).unwrap());
        Request {
            group: Some("g".into()),
            ..request
        }
    };
    let workload = Workload::new((0..n).map(request).collect()).unwrap();
    let stop = Stop::Requests(NonZeroU64::new(u64::from(n)).unwrap());
    let address = format!("http://{address}").parse().unwrap();
    let target = Target::new(address, "m", Protocol::Completions);
    let mut plan = RunPlan::new(workload, Load::closed(NonZeroU32::MIN), stop, target);
    // On a large machine there would be several, each with connections of its own.
    plan.threads.count = Some(NonZeroU32::MIN);
    plan
}

async fn go(plan: RunPlan) -> Run {
    run(plan, &mut NoObserver, pending()).await.unwrap()
}

/// Tells the server of a test whenever the client is known to have read something of an answer.
struct HasRead<F>(F);

impl<F: FnMut() + Send> Observer for HasRead<F> {
    fn progress(&mut self, progress: &Progress) {
        if progress.tokens > 0 {
            (self.0)();
        }
    }

    fn records(&mut self, _: &[Record]) -> Result<(), ObserverError> {
        Ok(())
    }
}

/// One request to a server that answers with `answer` and closes.
async fn answered(answer: String) -> Record {
    let server = Server::start(move |_, stream| {
        write(stream, &answer);
        Then::Close
    });
    go(plan(server.address, 1)).await.records.remove(0)
}

fn failure(record: &Record) -> (Class, &str) {
    match record.outcome {
        Outcome::Failed(class) => (class, record.error.as_deref().unwrap()),
        other => panic!("expected a failure, got {other}"),
    }
}

fn assert_good(record: &Record) {
    assert_eq!((record.outcome, &record.error), (Outcome::Completed, &None));
    let digest = blake3::hash("héllo".as_bytes()).to_hex().to_string();
    assert_eq!(record.text_digest, Some(digest));
    assert_eq!(
        record
            .events
            .iter()
            .map(|event| event.tokens)
            .collect::<Vec<_>>(),
        [1, 1]
    );
    let usage = record.usage.unwrap();
    assert_eq!(
        (
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.cached_tokens
        ),
        (3, 2, Some(1))
    );
    assert_eq!(record.finish.as_deref(), Some("length"));
    let mut instants = vec![record.scheduled, record.dispatched.unwrap()];
    instants.extend(record.connected);
    instants.extend(record.headers);
    instants.extend(record.events.iter().map(|event| event.at));
    instants.push(record.done);
    assert!(instants.is_sorted(), "{instants:?}");
}

#[tokio::test]
async fn good_answers_share_one_connection() {
    let server = Server::start(|_, stream| {
        write(stream, good());
        Then::KeepAlive
    });
    let result = go(plan(server.address, 5)).await;
    result.records.iter().for_each(assert_good);
    assert_eq!(result.info.ended, Ended::Reached);
    assert_eq!(result.info.in_flight_peak, 1);
    assert!(
        result
            .records
            .iter()
            .zip(0..)
            .all(|(record, i)| record.index == i)
    );
    assert!(server.asked().iter().all(|asked| asked.connection == 0));
    let fresh: Vec<bool> = result
        .records
        .iter()
        .map(|r| r.connected.is_some())
        .collect();
    assert_eq!(fresh, [true, false, false, false, false]);
    let asked = &server.asked()[4];
    assert!(
        asked.head.starts_with("POST /v1/completions HTTP/1.1\r\n"),
        "{}",
        asked.head
    );
    assert_eq!(asked.body["prompt"], serde_json::json!([1, 2, 4]));
}

/// The kernel's time lies between the instants at which the server began to write an event and the
/// client had it.
#[tokio::test]
async fn the_kernel_tells_when_an_event_came() {
    let wrote = Arc::new(Mutex::new(Vec::new()));
    let log = wrote.clone();
    let monotonic = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    };
    let server = Server::start(move |_, stream| {
        write(stream, HEAD);
        for event in [piece("hé"), piece("llo")] {
            std::thread::sleep(Duration::from_millis(5));
            log.lock().unwrap().push(monotonic());
            write(stream, chunk(&event));
        }
        let end = [FINISH, USAGE, DONE].map(chunk).concat();
        write(stream, end + &chunk(""));
        Then::KeepAlive
    });
    let mut plan = plan(server.address, 20);
    plan.event_time = EventTime::Kernel;
    let run = go(plan).await;
    let began = wrote.lock().unwrap().clone();
    for (record, began) in run.records.iter().zip(began.chunks(2)) {
        assert_good(record);
        let mut before = record.dispatched.unwrap();
        for (event, began) in record.events.iter().zip(began) {
            let at = run.info.started_monotonic_ns + event.at;
            // Two clocks are set beside each other, to within far less than lies between two events.
            assert!(at + 1_000_000 > *began, "{at} before {began}");
            // Of events that are read at one go the kernel tells the last one's time.
            assert!(event.at >= before);
            before = event.at;
        }
        assert!(record.done >= before);
    }
}

#[tokio::test]
async fn bytes_may_be_cut_anywhere() {
    let server = Server::start(|_, stream| {
        good()
            .as_bytes()
            .iter()
            .for_each(|byte| write(stream, [*byte]));
        Then::KeepAlive
    });
    go(plan(server.address, 2))
        .await
        .records
        .iter()
        .for_each(assert_good);
}

#[tokio::test]
async fn the_key_is_sent_and_chat_is_spoken() {
    let server = Server::start(|_, stream| {
        let say = "data: {\"choices\":[{\"delta\":{\"content\":\"héllo\"},\"finish_reason\":\"stop\"}]}\n\n";
        write(
            stream,
            [HEAD, &chunk(say), &chunk(DONE), &chunk("")].concat(),
        );
        Then::KeepAlive
    });
    let mut plan = plan(server.address, 1);
    let mut request = plan.workload.requests()[0].clone();
    request.prompt = Prompt::Text("hi".into());
    plan.workload = Arc::new(Workload::new(vec![request]).unwrap());
    plan.target.protocol = Protocol::Chat;
    plan.target.api_key = Some(Secret::new("hush"));
    let result = go(plan).await;
    assert_eq!(result.records[0].outcome, Outcome::Completed);
    assert_eq!(
        (result.records[0].usage, result.records[0].answer_tokens()),
        (None, 1)
    );
    let asked = &server.asked()[0];
    assert!(asked.head.starts_with("POST /v1/chat/completions"));
    assert!(
        asked
            .head
            .to_lowercase()
            .contains("authorization: bearer hush\r\n")
    );
    assert_eq!(asked.body["messages"][0]["content"], "hi");
}

#[tokio::test]
async fn a_request_may_ask_for_a_model_of_its_own() {
    let server = Server::start(|_, stream| {
        write(stream, good());
        Then::KeepAlive
    });
    let mut plan = plan(server.address, 3);
    let mut requests = plan.workload.requests().to_vec();
    requests[1].model = Some("other".into());
    plan.workload = Arc::new(Workload::new(requests).unwrap());
    let records = go(plan.clone()).await.records;
    let sent: Vec<_> = server
        .asked()
        .iter()
        .map(|asked| asked.body["model"].clone())
        .collect();
    assert_eq!(sent, ["m", "other", "m"]);
    let recorded: Vec<&str> = records.iter().map(|record| record.model.as_str()).collect();
    assert_eq!(recorded, ["m", "other", "m"]);

    // A body that cannot name a model would ask for another one than the record says.
    let mut requests = plan.workload.requests().to_vec();
    requests[1].prompt = Prompt::Text("x".into());
    plan.workload = Arc::new(Workload::new(vec![requests.remove(1)]).unwrap());
    plan.stop = Stop::Requests(NonZeroU64::MIN);
    for protocol in [Protocol::Sglang, Protocol::Triton] {
        plan.target.protocol = protocol;
        let error = plan.check().unwrap_err().to_string();
        assert!(
            error.contains("request `r1` asks for the model `other`"),
            "{error}"
        );
        plan.target.model = "other".into();
        plan.check().unwrap();
        plan.target.model = "m".into();
    }
}

#[tokio::test]
async fn errors_inside_a_stream_are_failures() {
    let error = "data: {\"error\":{\"message\":\"out of memory\",\"code\":500}}\n\n";
    let record = answered([HEAD, &chunk(&piece("a")), &chunk(error)].concat()).await;
    assert_eq!(failure(&record), (Class::InBand, "out of memory"));
    assert_eq!(record.events.len(), 1);
}

#[tokio::test]
async fn a_status_is_a_failure_with_the_servers_words() {
    let server = Server::start(|_, stream| {
        let body = "the queue is full";
        write(
            stream,
            format!(
                "HTTP/1.1 503 Busy\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            ),
        );
        Then::KeepAlive
    });
    let result = go(plan(server.address, 2)).await;
    for record in &result.records {
        let (class, message) = failure(record);
        assert_eq!(class, Class::HttpStatus(503));
        assert!(message.contains("the queue is full"), "{message}");
        assert!(record.headers.is_some());
    }
    // An answer read to its end leaves a connection that can be used again.
    assert!(server.asked().iter().all(|asked| asked.connection == 0));
}

#[tokio::test]
async fn cut_streams_are_truncated() {
    // Cut inside the chunked encoding, in the middle of an event.
    let record = answered([HEAD, &chunk(&piece("a")), "20\r\ndata: {"].concat()).await;
    assert_eq!(
        (failure(&record).0, record.events.len()),
        (Class::Truncated, 1)
    );
    // A proper end of the body, but nobody said that the answer was finished.
    let record = answered([HEAD, &chunk(&piece("a")), &chunk("")].concat()).await;
    assert_eq!(
        failure(&record),
        (Class::Truncated, "the stream ended without a finish reason")
    );
    // Finished, then cut: usage may be missing, and nobody knows.
    let record = answered([HEAD, &chunk(&piece("a")), &chunk(FINISH)].concat()).await;
    assert_eq!(failure(&record).0, Class::Truncated);
    // A fresh connection that is closed without a byte is not tried again.
    let record = answered(String::new()).await;
    assert_eq!((failure(&record).0, record.attempts), (Class::Truncated, 1));
}

#[tokio::test]
async fn a_stream_without_the_done_marker_is_complete() {
    let record = answered(
        [
            HEAD,
            &chunk(&piece("a")),
            &chunk(FINISH),
            &chunk(USAGE),
            &chunk(""),
        ]
        .concat(),
    )
    .await;
    assert_eq!(record.outcome, Outcome::Completed);
}

#[tokio::test]
async fn output_that_is_none_is_bad() {
    for (answer, words) in [
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n{\"a\"".into(),
            "expected an event stream",
        ),
        ([HEAD, &chunk("data: <html>\n\n")].concat(), "no chunk"),
        (
            [HEAD, &chunk(FINISH), &chunk(DONE), &chunk("")].concat(),
            "no content",
        ),
        ("SSH-2.0-OpenSSH\r\n\r\n".into(), "invalid"),
    ] {
        let record = answered(answer).await;
        let (class, message) = failure(&record);
        assert!(
            class == Class::BadOutput && message.contains(words),
            "{class} {message}"
        );
    }
}

#[tokio::test]
async fn sizes_are_limited() {
    let server = Server::start(|number, stream| {
        let long = "x".repeat(5000);
        write(
            stream,
            match number {
                0 => [HEAD, &chunk(&format!("data: {long}"))].concat(),
                1 => [HEAD, &chunk(&format!("data: {}\n", &long[..900]).repeat(3))].concat(),
                2 => [HEAD, &chunk(&": comment\n".repeat(9000))].concat(),
                _ => format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", long.repeat(20)),
            },
        );
        until_closed(stream)
    });
    let mut plan = plan(server.address, 4);
    plan.limits = Limits {
        head: 8192,
        line: 1000,
        event: 2000,
        body: 50_000,
        images: 1 << 20,
        histories: 1 << 20,
    };
    let result = go(plan).await;
    for (record, words) in result.records.iter().zip([
        "longer than 1000",
        "larger than 2000",
        "larger than 50000",
        "longer than 8192",
    ]) {
        let (class, message) = failure(record);
        assert!(
            class == Class::BadOutput && message.contains(words),
            "{class} {message}"
        );
    }
}

#[tokio::test]
async fn silence_times_out_before_and_within_an_answer() {
    let server = Server::start(|number, stream| {
        match number {
            0 => {}
            1 => write(stream, &good()[..20]),
            _ => write(stream, [HEAD, &chunk(&piece("a"))].concat()),
        }
        until_closed(stream)
    });
    let mut early = plan(server.address, 2);
    early.timeouts.request = Duration::from_millis(60);
    for record in go(early).await.records {
        let (class, message) = failure(&record);
        assert!(
            class == Class::Timeout && message.contains("not complete after 60ms"),
            "{message}"
        );
        assert_eq!((record.headers, record.attempts), (None, 1));
    }
    let mut within = plan(server.address, 1);
    within.timeouts.idle = Duration::from_secs(1);
    let record = go(within).await.records.remove(0);
    let (class, message) = failure(&record);
    assert!(
        class == Class::Timeout && message.contains("no content for 1s"),
        "{message}"
    );
    assert_eq!(record.events.len(), 1);
}

#[tokio::test]
async fn nobody_listening_is_refused() {
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let result = go(plan(address, 2)).await;
    for record in &result.records {
        let (class, message) = failure(record);
        assert!(
            class == Class::Refused && message.contains(&address.to_string()),
            "{message}"
        );
        assert!(record.dispatched.is_some() && record.connected.is_none());
    }
}

#[tokio::test]
async fn a_server_without_tls_is_no_connection() {
    let server = Server::start(|_, _| panic!("a TLS greeting is no request"));
    let mut plan = plan(server.address, 1);
    plan.target.address = format!("https://{}", server.address).parse().unwrap();
    let result = go(plan).await;
    let (class, message) = failure(&result.records[0]);
    assert!(
        class == Class::Connect && message.contains("cannot connect to"),
        "{class} {message}"
    );
}

#[tokio::test]
async fn a_pooled_connection_that_was_closed_is_replaced() {
    // Closed right after the answer: whenever the client notices, no request is lost.
    let server = Server::start(|_, stream| {
        write(stream, good());
        Then::Close
    });
    go(plan(server.address, 20))
        .await
        .records
        .iter()
        .for_each(assert_good);
    // Closed after the next request was read, without a byte of answer: sent once more.
    let server = Server::start(|number, stream| match number {
        1 => Then::Close,
        _ => {
            write(stream, good());
            Then::KeepAlive
        }
    });
    let result = go(plan(server.address, 2)).await;
    result.records.iter().for_each(assert_good);
    assert_eq!(result.records[1].attempts, 2);
    assert!(result.records[1].connected.is_some());
    assert_eq!(
        server
            .asked()
            .iter()
            .map(|a| a.connection)
            .collect::<Vec<_>>(),
        [0, 0, 1]
    );
    assert_eq!(server.asked()[1].body, server.asked()[2].body);
}

#[tokio::test]
async fn a_request_that_was_being_answered_is_not_sent_again() {
    let server = Server::start(|number, stream| match number {
        1 => {
            write(stream, "HTTP/1.1 2");
            Then::Close
        }
        _ => {
            write(stream, good());
            Then::KeepAlive
        }
    });
    let result = go(plan(server.address, 2)).await;
    assert_eq!(failure(&result.records[1]).0, Class::Truncated);
    assert_eq!((server.asked().len(), result.records[1].attempts), (2, 1));
}

#[tokio::test]
async fn a_cap_holds_arrivals_back_and_shows_the_queue() {
    let server = Server::start(|_, stream| {
        write(stream, good());
        Then::KeepAlive
    });
    let mut plan = plan(server.address, 6);
    let max_in_flight = Some(NonZeroU32::MIN);
    plan.load = Load::Open {
        arrivals: Arrivals::AllAtOnce,
        seed: 0,
        max_in_flight,
        ready_queue: None,
        rounds: Rounds::Overlap,
    };
    let result = go(plan).await;
    result.records.iter().for_each(assert_good);
    assert_eq!(result.info.in_flight_peak, 1);
    assert!(result.records.iter().all(|record| record.scheduled == 0));
    let mut spans: Vec<_> = result
        .records
        .iter()
        .map(|r| (r.dispatched.unwrap(), r.done))
        .collect();
    spans.sort_unstable();
    assert!(
        spans.windows(2).all(|pair| pair[0].1 <= pair[1].0),
        "{spans:?}"
    );
}

#[tokio::test]
async fn open_arrivals_keep_their_instants_and_may_cycle() {
    let server = Server::start(|_, stream| {
        write(stream, good());
        Then::KeepAlive
    });
    let mut plan = plan(server.address, 2);
    let rate = Rate::per_second(500.0).unwrap();
    plan.load = Load::Open {
        arrivals: Arrivals::at(Process::Constant, rate),
        seed: 0,
        max_in_flight: None,
        ready_queue: None,
        rounds: Rounds::Overlap,
    };
    plan.stop = Stop::Requests(NonZeroU64::new(5).unwrap());
    plan.reuse = Reuse::Cycle;
    let result = go(plan).await;
    result.records.iter().for_each(assert_good);
    let scheduled: Vec<u64> = result
        .records
        .iter()
        .map(|record| record.scheduled)
        .collect();
    assert_eq!(scheduled, [0, 2_000_000, 4_000_000, 6_000_000, 8_000_000]);
    let ids: Vec<&str> = result
        .records
        .iter()
        .map(|record| record.request.as_str())
        .collect();
    assert_eq!(ids, ["r0", "r1", "r0", "r1", "r0"]);
}

#[tokio::test]
async fn a_timed_run_says_when_the_workload_was_too_short() {
    let server = Server::start(|_, stream| {
        write(stream, good());
        Then::KeepAlive
    });
    let mut plan = plan(server.address, 3);
    plan.stop = Stop::After(Duration::from_secs(3600));
    let result = go(plan).await;
    assert_eq!(
        (result.info.ended, result.records.len()),
        (Ended::Exhausted, 3)
    );
}

#[tokio::test]
async fn cancelling_cuts_off_what_is_in_flight() {
    let (seen, all_seen) = mpsc::channel();
    let server = Server::start(move |_, stream| {
        write(stream, [HEAD, &chunk(&piece("a"))].concat());
        seen.send(()).unwrap();
        until_closed(stream)
    });
    let mut plan = plan(server.address, 4);
    plan.load = Load::closed(NonZeroU32::new(2).unwrap());
    let cancel = async move {
        tokio::task::spawn_blocking(move || (0..2).for_each(|_| all_seen.recv().unwrap()))
            .await
            .unwrap();
    };
    // Spawned, because a caller will: the future has to be Send.
    let result = tokio::spawn(async move { run(plan, &mut NoObserver, cancel).await });
    let result = result.await.unwrap().unwrap();
    assert_eq!(
        (result.info.ended, result.records.len()),
        (Ended::Interrupted, 2)
    );
    for record in &result.records {
        assert_eq!(record.outcome, Outcome::Dropped);
        assert!(record.dispatched.is_some());
    }
}

#[tokio::test]
async fn cancelling_does_not_wait_for_far_arrivals_nor_for_the_cap() {
    let (seen, first_seen) = mpsc::channel();
    let server = Server::start(move |_, stream| {
        seen.send(()).unwrap();
        until_closed(stream)
    });
    let mut plan = plan(server.address, 3);
    let mut requests = plan.workload.requests().to_vec();
    for (request, seconds) in requests.iter_mut().zip([0, 0, 86_400]) {
        request.arrival = Some(Duration::from_secs(seconds));
    }
    plan.workload = Arc::new(Workload::new(requests).unwrap());
    let speed = Rate::per_second(1.0).unwrap();
    let max_in_flight = Some(NonZeroU32::MIN);
    plan.load = Load::Open {
        arrivals: Arrivals::Listed { speed },
        seed: 0,
        max_in_flight,
        ready_queue: None,
        rounds: Rounds::Overlap,
    };
    let cancel = async move {
        tokio::task::spawn_blocking(move || first_seen.recv().unwrap())
            .await
            .unwrap();
    };
    let result = run(plan, &mut NoObserver, cancel).await.unwrap();
    assert_eq!(result.info.ended, Ended::Interrupted);
    assert!(
        result
            .records
            .iter()
            .all(|record| record.outcome == Outcome::Dropped)
    );
    let sent = result
        .records
        .iter()
        .filter(|record| record.dispatched.is_some())
        .count();
    assert_eq!((result.records.len(), sent), (2, 1));
}

#[tokio::test]
async fn dropping_the_run_closes_its_connections() {
    let (seen, all_seen) = mpsc::channel();
    let server = Server::start(move |_, stream| {
        seen.send(()).unwrap();
        let then = until_closed(stream);
        seen.send(()).unwrap();
        then
    });
    let plan = plan(server.address, 1);
    let running = tokio::spawn(async move { run(plan, &mut NoObserver, pending()).await });
    let wait = move || {
        all_seen.recv().unwrap();
        all_seen
    };
    let all_seen = tokio::task::spawn_blocking(wait).await.unwrap();
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    // Hangs, and so fails, if the connection stays open.
    tokio::task::spawn_blocking(move || all_seen.recv().unwrap())
        .await
        .unwrap();
}

#[derive(Default)]
struct Watching {
    records: Vec<u64>,
    last: Progress,
    refuse: bool,
}

impl Observer for Watching {
    fn progress(&mut self, progress: &Progress) {
        self.last = *progress;
    }

    fn records(&mut self, records: &[Record]) -> Result<(), ObserverError> {
        if self.refuse {
            return Err("the disk is full".into());
        }
        self.records
            .extend(records.iter().map(|record| record.index));
        Ok(())
    }
}

#[tokio::test]
async fn an_observer_sees_every_record_once_and_the_end() {
    let server = Server::start(|_, stream| {
        write(stream, good());
        Then::KeepAlive
    });
    let mut watching = Watching::default();
    let mut plan = plan(server.address, 300);
    plan.load = Load::closed(NonZeroU32::new(4).unwrap());
    run(plan.clone(), &mut watching, pending()).await.unwrap();
    watching.records.sort_unstable();
    assert_eq!(watching.records, (0..300).collect::<Vec<_>>());
    let last = watching.last;
    assert_eq!(
        (last.planned, last.sent, last.completed),
        (Some(300), 300, 300)
    );
    assert_eq!((last.failed, last.in_flight, last.tokens), (0, 0, 600));
    let mut refusing = Watching {
        refuse: true,
        ..Watching::default()
    };
    let error = run(plan, &mut refusing, pending()).await.unwrap_err();
    assert!(matches!(error, RunError::Observer(cause) if cause.to_string() == "the disk is full"));
}

#[tokio::test]
async fn an_impossible_plan_sends_nothing() {
    let asked = Arc::new(Mutex::new(0));
    let count = asked.clone();
    let server = Server::start(move |_, _| {
        *count.lock().unwrap() += 1;
        Then::Close
    });
    let mut plan = plan(server.address, 1);
    plan.target.protocol = Protocol::Chat;
    let error = run(plan, &mut NoObserver, pending()).await.unwrap_err();
    assert!(error.to_string().contains("token ids"), "{error}");
    assert_eq!(*asked.lock().unwrap(), 0);
}

/// A plan that an answer of any kind is asked by, in any protocol.
fn with_protocol(address: impl std::fmt::Display, protocol: Protocol) -> RunPlan {
    let mut plan = plan(address, 1);
    let mut request = plan.workload.requests()[0].clone();
    if protocol == Protocol::Triton {
        request.prompt = Prompt::Text("hi".into());
    }
    plan.workload = Arc::new(Workload::new(vec![request]).unwrap());
    plan.target.protocol = protocol;
    plan
}

#[tokio::test]
async fn every_cut_of_an_answer_gives_the_same_record() {
    let whole = good();
    let n = whole.len();
    let server = Server::start(move |number, stream| {
        let (first, rest) = whole.as_bytes().split_at(number + 1);
        write(stream, first);
        // Two packets, however the system would like to join them.
        std::thread::sleep(Duration::from_micros(300));
        write(stream, rest);
        Then::KeepAlive
    });
    let n = u32::try_from(n - 1).unwrap();
    let result = go(plan(server.address, n)).await;
    assert_eq!(result.records.len(), n as usize);
    result.records.iter().for_each(assert_good);
    assert!(result.records.iter().all(|r| r.attempts == 1));
}

#[tokio::test]
async fn streams_as_servers_really_write_them() {
    // Comments, CRLF, an id, a named event, several events in one chunk, one event in three.
    let odd = [
        ": ping\r\n\r\n".to_owned(),
        "id: 7\r\nretry: 3\r\nevent: message\r\n".to_owned() + &piece("hé").replace('\n', "\r\n"),
        piece("llo") + FINISH + USAGE,
        DONE.into(),
    ];
    let (first, rest) = odd[1].split_at(40);
    let answer = [
        HEAD,
        &chunk(&odd[0]),
        &chunk(first),
        &chunk(rest),
        &chunk(&odd[2]),
        &chunk(&odd[3]),
        &chunk(""),
    ];
    assert_good(&answered(answer.concat()).await);
    // A body that ends with the connection, as HTTP/1.0 servers have it.
    let head = "HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    let answer = [head, &piece("hé"), &piece("llo"), FINISH, USAGE, DONE];
    assert_good(&answered(answer.concat()).await);
    // An interim answer before the real one.
    let answer = format!("HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n{}", good());
    assert_good(&answered(answer).await);
}

#[tokio::test]
async fn what_was_not_asked_for_is_refused() {
    let stream = "content-type: text/event-stream\r\n";
    for (answer, class, words) in [
        (
            format!(
                "HTTP/1.1 200 OK\r\n{stream}content-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc"
            ),
            Class::BadOutput,
            "coded as `gzip`",
        ),
        (
            "HTTP/1.1 307 Elsewhere\r\nlocation: http://other/\r\ncontent-length: 0\r\n\r\n".into(),
            Class::HttpStatus(307),
            "leads to `http://other/`, which is not followed",
        ),
        // A length that is longer than what comes, and one that is shorter.
        (
            format!(
                "HTTP/1.1 200 OK\r\n{stream}content-length: 9999\r\n\r\n{}",
                piece("a")
            ),
            Class::Truncated,
            "closed before",
        ),
        (
            format!(
                "HTTP/1.1 200 OK\r\n{stream}content-length: 20\r\n\r\n{}{FINISH}{DONE}",
                piece("a")
            ),
            Class::Truncated,
            "without a finish reason",
        ),
        (
            format!("HTTP/1.1 200 OK\r\n{stream}transfer-encoding: chunked\r\n\r\nxyz\r\n"),
            Class::BadOutput,
            "no size of a chunk",
        ),
    ] {
        let record = answered(answer).await;
        let (found, message) = failure(&record);
        assert!(
            found == class && message.contains(words),
            "{found} {message}"
        );
    }
}

#[tokio::test]
async fn a_reset_in_the_middle_is_a_failure_with_its_instants() {
    let (tell, has_read) = mpsc::channel();
    let has_read = Mutex::new(has_read);
    let server = Server::start(move |_, stream| {
        write(stream, [HEAD, &chunk(&piece("a"))].concat());
        // What is not read makes the system reset the connection.
        let linger = rustix::net::sockopt::set_socket_linger(&*stream, Some(Duration::ZERO));
        linger.unwrap();
        has_read.lock().unwrap().recv().unwrap();
        Then::Close
    });
    // When the server is gone nobody hears of it.
    let mut observer = HasRead(|| {
        let _ = tell.send(());
    });
    let result = run(plan(server.address, 1), &mut observer, pending());
    let result = result.await.unwrap();
    let record = &result.records[0];
    assert_eq!(
        (failure(record).0, record.events.len()),
        (Class::Truncated, 1)
    );
}

#[tokio::test]
async fn sglang_and_triton_are_spoken() {
    let server = Server::start(|_, stream| {
        let event = |text: &str, n: u32, finish: &str| {
            format!(
                "data: {{\"text\":\"{text}\",\"meta_info\":{{\"finish_reason\":{finish},\"prompt_tokens\":3,\"completion_tokens\":{n},\"cached_tokens\":1}}}}\n\n"
            )
        };
        let last = event("héllo", 2, "{\"type\":\"length\"}");
        write(
            stream,
            [
                HEAD,
                &chunk(&event("hé", 1, "null")),
                &chunk(&last),
                &chunk(DONE),
                &chunk(""),
            ]
            .concat(),
        );
        Then::KeepAlive
    });
    let result = go(with_protocol(server.address, Protocol::Sglang)).await;
    assert_good(&result.records[0]);
    let asked = &server.asked()[0];
    assert!(
        asked.head.starts_with("POST /generate HTTP/1.1\r\n"),
        "{}",
        asked.head
    );
    assert_eq!(asked.body["input_ids"], serde_json::json!([1, 2, 0]));
    assert_eq!(asked.body["sampling_params"]["max_new_tokens"], 2);

    let server = Server::start(|_, stream| {
        let event =
            |text: &str| format!("data: {{\"model_name\":\"m\",\"text_output\":\"{text}\"}}\n\n");
        write(
            stream,
            [
                HEAD,
                &chunk(&event("hé")),
                &chunk(&event("llo")),
                &chunk(""),
            ]
            .concat(),
        );
        Then::KeepAlive
    });
    let result = go(with_protocol(server.address, Protocol::Triton)).await;
    let record = &result.records[0];
    assert_eq!(
        (record.outcome, record.answer_tokens(), record.usage),
        (Outcome::Completed, 2, None)
    );
    let asked = &server.asked()[0];
    assert!(
        asked.head.starts_with("POST /v2/models/m/generate_stream "),
        "{}",
        asked.head
    );
    assert_eq!(
        (&asked.body["text_input"], &asked.body["min_length"]),
        (&"hi".into(), &2.into())
    );
}

/// How long a server stops that answers one request at a time, and at which request.
const PAUSE: Duration = Duration::from_secs(2);
const PAUSED_AT: usize = 10;

/// 300 requests to a server that stops once.
async fn during_a_pause(load: Load) -> Run {
    let server = Server::start(|number, stream| {
        if number == PAUSED_AT {
            std::thread::sleep(PAUSE);
        }
        write(stream, good());
        Then::KeepAlive
    });
    let mut plan = plan(server.address, 300);
    plan.load = load;
    let result = go(plan).await;
    result.records.iter().for_each(assert_good);
    result
}

/// Requests that were waiting, counted from the instant `from`, when the pause ended.
fn waited_through(run: &Run, from: fn(&Record) -> u64) -> usize {
    let first = |r: &Record| r.events[0].at;
    let paused = run.records.iter().find(|r| r.index == PAUSED_AT as u64);
    let end = first(paused.unwrap());
    let waited = |r: &&Record| from(r) < end && first(r) >= end;
    run.records.iter().filter(waited).count()
}

#[tokio::test]
async fn a_server_that_pauses_shows_in_what_users_of_an_open_loop_waited() {
    // One request every 5 ms: all that follow the one that met the pause come before it ends.
    let run = during_a_pause(Load::Open {
        arrivals: Arrivals::at(Process::Constant, Rate::per_second(200.0).unwrap()),
        seed: 0,
        max_in_flight: Some(NonZeroU32::MIN),
        ready_queue: None,
        rounds: Rounds::Overlap,
    })
    .await;
    // From its dispatch only one request was slow: a client that counts so has seen nothing.
    assert_eq!(waited_through(&run, |r| r.dispatched.unwrap()), 1);
    assert_eq!(waited_through(&run, |r| r.scheduled), 300 - PAUSED_AT);
    let metrics = Metrics::of(&run.info, &run.records);
    let at_least = |value: Option<f64>, ms: f64| value.is_some_and(|value| value >= ms);
    // Two thirds of the requests came in the first second of the pause, and waited for the second.
    let waited = &metrics.ttft_scheduled.completed;
    assert!(at_least(waited.p50, 1000.0), "{waited:?}");
    assert!(at_least(waited.p99, 1900.0), "{waited:?}");
}

#[tokio::test]
async fn a_closed_loop_hides_a_pause_from_all_but_one() {
    let run = during_a_pause(Load::closed(NonZeroU32::MIN)).await;
    // Its user sends nothing meanwhile: nobody is there who could have waited.
    assert_eq!(waited_through(&run, |r| r.dispatched.unwrap()), 1);
    assert_eq!(waited_through(&run, |r| r.scheduled), 1);
    let slow = |r: &&Record| r.events[0].at - r.scheduled >= 2_000_000_000;
    assert!(run.records.iter().any(|r| slow(&r)));
}

#[tokio::test]
async fn users_hold_their_conversations_turn_by_turn_and_think() {
    let server = Server::start(|_, stream| {
        write(stream, good());
        Then::KeepAlive
    });
    let mut plan = plan(server.address, 6);
    let requests = plan.workload.requests().iter().zip([
        ("b", 1),
        ("a", 0),
        ("b", 0),
        ("a", 1),
        ("b", 2),
        ("a", 2),
    ]);
    let requests = requests.map(|(request, (name, turn))| {
        let mut request = request.clone();
        request.conversation = Some(name.to_owned());
        request.turn = turn;
        request
    });
    plan.workload = Arc::new(Workload::new(requests.collect()).unwrap());
    let think = Duration::from_millis(3);
    plan.load = Load::Closed {
        concurrency: NonZeroU32::new(2).unwrap(),
        think: Some(loadgen::Think {
            mean: think,
            seed: None,
        }),
        sessions: true,
    };
    let result = go(plan).await;
    assert_eq!(result.records.len(), 6);
    for name in ["a", "b"] {
        let turns: Vec<&Record> = result
            .records
            .iter()
            .filter(|r| r.conversation.as_deref() == Some(name))
            .collect();
        let numbers: Vec<u32> = turns.iter().map(|r| r.turn).collect();
        assert_eq!(numbers, [0, 1, 2], "{name}");
        for pair in turns.windows(2) {
            let gap = Duration::from_nanos(pair[1].scheduled - pair[0].done);
            assert_eq!(gap, think);
            assert!(pair[1].dispatched.unwrap() >= pair[1].scheduled);
        }
    }
}

#[tokio::test]
async fn a_user_without_a_session_takes_no_turn_from_others() {
    let server = Server::start(|_, stream| {
        write(stream, good());
        Then::KeepAlive
    });
    let mut plan = plan(server.address, 4);
    let mut requests = plan.workload.requests().to_vec();
    // The first is a conversation by itself: its user is through long before the other one.
    for (request, turn) in requests[1..].iter_mut().zip(0..) {
        request.conversation = Some("long".into());
        request.turn = turn;
    }
    plan.workload = Arc::new(Workload::new(requests).unwrap());
    plan.load = Load::Closed {
        concurrency: NonZeroU32::new(2).unwrap(),
        think: None,
        sessions: true,
    };
    let indices: Vec<u64> = go(plan).await.records.iter().map(|r| r.index).collect();
    assert_eq!(indices, [0, 1, 2, 3]);
}

#[tokio::test]
async fn several_threads_share_the_work_and_lose_nothing() {
    let server = Server::start(|_, stream| {
        write(stream, good());
        Then::KeepAlive
    });
    for load in [
        Load::closed(NonZeroU32::new(7).unwrap()),
        Load::Open {
            arrivals: Arrivals::at(Process::Poisson, Rate::per_second(3000.0).unwrap()),
            seed: 5,
            max_in_flight: NonZeroU32::new(3),
            ready_queue: None,
            rounds: Rounds::Overlap,
        },
    ] {
        let mut plan = plan(server.address, 200);
        plan.load = load;
        plan.threads.count = NonZeroU32::new(3);
        let result = go(plan).await;
        result.records.iter().for_each(assert_good);
        assert_eq!((result.records.len(), result.info.client.threads), (200, 3));
    }
}

#[tokio::test]
async fn what_was_left_unsent_is_not_taken_for_the_next_request() {
    // It answers as soon as it has seen a head, reads no body, and would keep the connection.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (told, connections) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            told.send(()).unwrap();
            std::thread::spawn(move || {
                let mut head = [0; 64];
                std::io::Read::read_exact(&mut stream, &mut head).unwrap();
                let body = "the prompt is too long";
                let length = body.len();
                let answer = format!("HTTP/1.1 413 No\r\ncontent-length: {length}\r\n\r\n{body}");
                write(&mut stream, answer);
                // Closed with the process: until then what was sent lies there unread.
                std::mem::forget(stream);
            });
        }
    });
    let mut plan = plan(address, 2);
    let requests = plan.workload.requests().iter().map(|request| {
        let mut request = request.clone();
        // More than both ends of a connection hold back.
        request.prompt = Prompt::Text("word ".repeat(4 << 20));
        request
    });
    plan.workload = Arc::new(Workload::new(requests.collect()).unwrap());
    for record in go(plan).await.records {
        let (class, message) = failure(&record);
        assert_eq!(class, Class::HttpStatus(413), "{message}");
        assert!(message.contains("the prompt is too long"), "{message}");
    }
    assert_eq!(connections.try_iter().count(), 2);
}
