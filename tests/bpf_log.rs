//! A log line of the BPF programs, all the way: written in the kernel, through aya-log's ring, through
//! `tracing`, onto the standard error of the real binary. Needs root, and fails without.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use aya::maps::{HashMap, Map, MapData, loaded_maps};

/// The `TARGETS` maps on this machine that know `cgroup_id`: there is one, of the memwatch under test.
fn targets_with(cgroup_id: u64) -> Vec<HashMap<MapData, u64, u32>> {
    let maps = loaded_maps().flatten();
    let named = maps.filter(|map| map.name_as_str() == Some("TARGETS"));
    named
        .filter_map(|map| {
            let map = Map::HashMap(MapData::from_id(map.id()).ok()?);
            let map: HashMap<MapData, u64, u32> = map.try_into().ok()?;
            map.get(&cgroup_id, 0).is_ok().then_some(map)
        })
        .collect()
}

#[test]
fn what_the_programs_log_comes_out_on_stderr() {
    let mut memwatch = Command::new(env!("CARGO_BIN_EXE_memwatch"))
        .args(["attach", "--memory-max", "100M", "--", "sh", "-c"])
        // Each (:) is a process of the target that exits, which runs one of the programs.
        .arg("cat /proc/self/cgroup; echo; read go; (:); (:); sleep 1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("memwatch");
    let own: BTreeSet<String> = BufReader::new(memwatch.stdout.take().expect("piped"))
        .lines()
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty())
        .collect();
    let v2 = own
        .iter()
        .find_map(|line| line.strip_prefix("0::/"))
        .expect("a v2 cgroup");
    let mounts = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
    let directory = mounts.map(|mount| Path::new(mount).join(v2));
    let id = directory
        .iter()
        .find_map(|dir| fs::metadata(dir).ok())
        .expect("the target's directory")
        .ino();

    let until = Instant::now() + Duration::from_secs(20);
    let mut maps = targets_with(id);
    while maps.is_empty() && Instant::now() < until {
        sleep(Duration::from_millis(20));
        maps = targets_with(id);
    }
    assert_eq!(maps.len(), 1, "the programs did not get to know the target");
    // A row that belongs to nobody: the programs must see that and say so.
    maps[0].insert(id, 1000, 0).expect("the target's entry");

    let mut stdin = memwatch.stdin.take().expect("piped");
    stdin.write_all(b"\n").expect("it reads");
    let mut said = String::new();
    let stderr = memwatch.stderr.as_mut().expect("piped");
    stderr.read_to_string(&mut said).expect("text");
    assert!(memwatch.wait().expect("ours").success(), "{said}");
    let line = format!("cgroup {id} has row 1000, which belongs to cgroup 0");
    assert!(said.contains(&line), "{said}");
    assert!(said.contains("WARN"), "{said}");
}
