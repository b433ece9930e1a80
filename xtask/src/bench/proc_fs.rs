//! What the kernel counts for processes, read from /proc.

use std::collections::BTreeMap;

use anyhow::Context as _;

/// Linux reports times to programs in hundredths of a second, whatever its own clock does (USER_HZ).
const TICK_US: u64 = 10_000;

/// Counters of the members, of the load generator and of the machine at one time.
pub struct Sample {
    /// In the order in which they were named.
    pub servers: Vec<Counters>,
    load_cpu_us: u64,
    busy_us: u64,
    passed_us: u64,
}

/// Counters of one member.
pub struct Counters {
    pub cpu_us: u64,
    pub written_bytes: u64,
    pub threads_cpu_us: BTreeMap<String, u64>,
}

/// Memory of a process, in bytes.
pub struct Memory {
    pub anonymous: u64,
    pub resident: u64,
    pub peak: u64,
}

// === impl Sample ===

impl Sample {
    pub fn take(servers: &[u32], load: u32) -> anyhow::Result<Self> {
        let (busy_us, passed_us) = parse_machine(&read("stat")?).context("/proc/stat")?;
        let servers = servers.iter().map(|server| Counters::of(*server)).collect::<anyhow::Result<_>>()?;
        Ok(Self { servers, load_cpu_us: cpu_us(load)?, busy_us, passed_us })
    }

    /// What each member has used since `start`.
    pub fn servers_since(&self, start: &Self) -> Vec<Counters> {
        self.servers.iter().zip(&start.servers).map(|(end, start)| end.since(start)).collect()
    }

    /// The part of all CPUs that neither servers nor load generator have used since `start`.
    pub fn elsewhere_since(&self, start: &Self) -> f64 {
        let servers: u64 = self.servers_since(start).iter().map(|used| used.cpu_us).sum();
        let ours = servers + (self.load_cpu_us - start.load_cpu_us);
        let busy = self.busy_us.saturating_sub(start.busy_us);
        busy.saturating_sub(ours) as f64 / self.passed_us.saturating_sub(start.passed_us).max(1) as f64
    }
}

// === impl Counters ===

impl Counters {
    fn of(pid: u32) -> anyhow::Result<Self> {
        Ok(Self {
            cpu_us: cpu_us(pid)?,
            written_bytes: field(&read(&format!("{pid}/io"))?, "write_bytes:").context("write_bytes")?,
            threads_cpu_us: threads(pid)?,
        })
    }

    fn since(&self, start: &Self) -> Self {
        let before = |name: &String| start.threads_cpu_us.get(name).copied().unwrap_or(0);
        let threads = self.threads_cpu_us.iter();
        Self {
            cpu_us: self.cpu_us - start.cpu_us,
            written_bytes: self.written_bytes - start.written_bytes,
            threads_cpu_us: threads.map(|(name, us)| (name.clone(), us.saturating_sub(before(name)))).collect(),
        }
    }
}

/// User and system time of all threads, those that have ended included.
pub fn cpu_us(pid: u32) -> anyhow::Result<u64> {
    parse_cpu(&read(&format!("{pid}/stat"))?).map(|(_, us)| us).with_context(|| format!("/proc/{pid}/stat"))
}

pub fn memory(pid: u32) -> anyhow::Result<Memory> {
    let status = read(&format!("{pid}/status"))?;
    let kib = |name: &str| field(&status, name).with_context(|| format!("{name} in /proc/{pid}/status"));
    Ok(Memory { anonymous: kib("RssAnon:")? * 1024, resident: kib("VmRSS:")? * 1024, peak: kib("VmHWM:")? * 1024 })
}

fn threads(pid: u32) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut threads = BTreeMap::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end meanwhile.
        let Ok(stat) = std::fs::read_to_string(task?.path().join("stat")) else { continue };
        let Some((name, us)) = parse_cpu(&stat) else { continue };
        // Threads of a pool differ by a number.
        let name = name.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches(['-', ':', '#', '_']);
        *threads.entry(name.to_owned()).or_default() += us;
    }
    Ok(threads)
}

fn read(name: &str) -> anyhow::Result<String> {
    std::fs::read_to_string(format!("/proc/{name}")).with_context(|| format!("read /proc/{name}"))
}

/// Name and CPU time. The name stands in parentheses and may itself hold spaces and parentheses.
fn parse_cpu(stat: &str) -> Option<(&str, u64)> {
    let (head, rest) = stat.rsplit_once(") ")?;
    let (_, name) = head.split_once('(')?;
    let mut fields = rest.split_ascii_whitespace();
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((name, (user + system) * TICK_US))
}

/// Busy and passed time of all CPUs: `cpu user nice system idle iowait irq softirq steal`.
fn parse_machine(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_ascii_whitespace().take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
    let [_, _, _, idle, iowait, ..] = ticks[..] else { return None };
    let passed: u64 = ticks.iter().sum();
    Some(((passed - idle - iowait) * TICK_US, passed * TICK_US))
}

/// The number after a name at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_behind_any_name() {
        let stat = "77 (a) b (c) S 1 77 77 0 -1 4194560 100 0 3 0 250 50 9 9 20 0 4 0 100 1 1";
        assert_eq!(parse_cpu(stat), Some(("a) b (c", 3_000_000)));
        assert_eq!(parse_cpu("77 (short) S 1"), None);
    }

    #[test]
    fn idle_and_waiting_is_not_busy() {
        assert_eq!(parse_machine("cpu  10 1 5 100 20 2 2 4 7 7\ncpu0 1\n"), Some((240_000, 1_440_000)));
        assert_eq!(parse_machine("intr 5"), None);
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let io = "wchar: 9\ncancelled_write_bytes: 7\nwrite_bytes: 4096\n";
        assert_eq!(field(io, "write_bytes:"), Some(4096));
        assert_eq!(field("RssAnon:\t   128 kB\n", "RssAnon:"), Some(128));
        assert_eq!(field(io, "read_bytes:"), None);
    }

    #[test]
    fn what_a_member_has_used_is_the_difference_of_its_counters() {
        let counters = |cpu_us, thread_us| Counters {
            cpu_us,
            written_bytes: 10 * cpu_us,
            threads_cpu_us: BTreeMap::from([("a".to_owned(), thread_us)]),
        };
        let sample = |servers, busy_us, passed_us| Sample { servers, load_cpu_us: 0, busy_us, passed_us };
        let start = sample(vec![counters(5, 2), counters(100, 0)], 0, 0);
        let end = sample(vec![counters(8, 3), counters(107, 9)], 60, 100);
        let used = end.servers_since(&start);
        assert_eq!(used.iter().map(|used| (used.cpu_us, used.written_bytes)).collect::<Vec<_>>(), [(3, 30), (7, 70)]);
        assert_eq!((used[0].threads_cpu_us["a"], used[1].threads_cpu_us["a"]), (1, 9));
        assert!((end.elsewhere_since(&start) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn this_process_can_be_read() {
        let own = std::process::id();
        let memory = memory(own).unwrap();
        assert!(memory.anonymous > 0 && memory.anonymous <= memory.peak && memory.resident <= memory.peak);
        let (first, second) = (Sample::take(&[own], own).unwrap(), Sample::take(&[own], own).unwrap());
        assert!((0.0..=1.0).contains(&second.elsewhere_since(&first)));
        assert!(!second.servers[0].threads_cpu_us.is_empty());
    }
}
