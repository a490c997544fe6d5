//! An engine that says what it is, and nothing else.

use super::super::meter::Patience;
use super::super::reach::reach;
use super::*;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

const VERSION: &str = r#"{"ApiVersion":"1.41","Version":"20.10","Components":[{"Name":"Engine","Version":"20.10"}]}"#;

/// Says what it is, and nothing else ever.
async fn silent(listener: UnixListener) {
    let mut open = Vec::new();
    while let Ok((mut client, _)) = listener.accept().await {
        let mut head = vec![0; 4096];
        let read = client.read(&mut head).await.unwrap_or(0);
        if head[..read].windows(8).any(|part| part == b"/version") {
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{VERSION}", VERSION.len());
            let _ = client.write_all(answer.as_bytes()).await;
        }
        open.push(client);
    }
}

#[tokio::test]
async fn an_engine_that_does_not_answer_holds_nobody_up_for_ever() {
    let folder = std::env::temp_dir().join(format!("vambrace-silent-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let socket = folder.join("engine.sock");
    let _ = std::fs::remove_file(&socket);
    let serving = tokio::spawn(silent(UnixListener::bind(&socket).unwrap()));
    let host = EngineHost::Unix(socket);
    let short = Duration::from_millis(50);
    for (patience, says) in [
        (Patience { call: short, ..Patience::USUAL }, "did not come to the end of its answer"),
        (Patience { preparation: short, ..Patience::USUAL }, "did not get the image"),
    ] {
        let engine = Engine::new(Settings {
            host: host.clone(),
            others: Vec::new(),
            gateway: "0".repeat(16),
            scratch: folder.join("scratch"),
            protected: Protected::default(),
        });
        *engine.docker.borrow_mut() = Some(reach(&host, patience).await.unwrap());
        // Of two sandboxes: the second waits for what the first holds, and comes to its own end.
        let named = |name: &str| SandboxProfile {
            kept: Some(folder.join(name)),
            image: "x:1".into(),
            workspace_access: WorkspaceAccess::None,
            ..SandboxProfile::default()
        };
        let (one, other) = (named("one"), named("other"));
        let ends = tokio::join!(engine.place(&one, |_| false), engine.place(&other, |_| false));
        for end in [ends.0, ends.1] {
            let told = end.unwrap_err();
            assert!(told.to_string().contains(says), "{told}");
        }
        assert!(
            engine.building.try_lock().is_ok() && engine.making.borrow().values().all(|turn| turn.try_lock().is_ok())
        );
    }
    serving.abort();
    std::fs::remove_dir_all(&folder).unwrap();
}
