//! One run: fresh members, one load, and the counters at both ends of what is measured.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::bail;
use anyhow::ensure;

use super::load::Generator;
use super::load::Target;
use super::proc_fs;
use super::proc_fs::Memory;
use super::proc_fs::Sample;
use super::record::Record;
use super::server::Cluster;
use super::server::Contender;
use super::server::Places;
use super::workload::Load;
use super::workload::Workload;

const MIB: f64 = 1024.0 * 1024.0;

pub struct Bench {
    pub contenders: Vec<Contender>,
    pub load: PathBuf,
    pub folder: PathBuf,
    pub scale: f64,
    pub members: usize,
    pub target_leader: bool,
}

/// What one run has shown.
#[derive(Default)]
pub struct Outcome {
    pub figures: BTreeMap<String, f64>,
    pub not_served: Vec<String>,
    /// The part of the machine's CPU that others have used meanwhile.
    pub elsewhere: f64,
    /// How often the leader has changed.
    pub elections: u64,
    /// CPU of the members per operation, in microseconds, by name of thread.
    pub threads_us_op: BTreeMap<String, f64>,
}

// === impl Bench ===

impl Bench {
    /// Each server once; every other round in the opposite order, so that a drift of the machine hits all alike.
    pub fn round(&self, workload: &'static Workload, round: usize, record: &mut Record) -> anyhow::Result<()> {
        let mut order: Vec<usize> = (0..self.contenders.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            let contender = &self.contenders[index];
            let folder = self.folder.join(format!("{}-{round}-{index}", workload.name));
            let outcome = self
                .run(contender, workload, &folder)
                .with_context(|| format!("{} on {}, round {}", workload.name, contender.name, round + 1))?;
            std::fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
            let shown =
                workload.figures(self.members).filter_map(|figure| Some((figure, outcome.figures.get(figure.key)?)));
            let shown: Vec<String> = shown.map(|(figure, value)| format!("{} {value:.2}", figure.key)).collect();
            println!(
                "round {} {:<18} {:<14} {} | others {:.0} %",
                round + 1,
                workload.name,
                contender.name,
                shown.join(" "),
                outcome.elsewhere * 100.0
            );
            record.add(workload, index, contender, outcome);
        }
        Ok(())
    }

    fn run(&self, contender: &Contender, workload: &Workload, folder: &Path) -> anyhow::Result<Outcome> {
        let places = Places::new(folder, self.members)?;
        let mut cluster = Cluster::start(contender, &places)?;
        let mut outcome = match self.measure(&workload.load, &places, &mut cluster) {
            Ok(outcome) => outcome,
            Err(error) => return Err(error.context(cluster.last_words())),
        };
        if workload.load.restart && self.members == 1 {
            cluster.stop()?;
            self.restart(contender, &workload.load, &places, &mut outcome)?;
        }
        // A figure that the generator does not report would be a silent gap in the table.
        for figure in workload.figures(self.members) {
            ensure!(
                outcome.figures.contains_key(figure.key)
                    || outcome.not_served.iter().any(|part| figure.key.starts_with(part.as_str())),
                "no figure {}",
                figure.key
            );
        }
        Ok(outcome)
    }

    fn target<'a>(&self, places: &'a Places) -> Target<'a> {
        Target { endpoints: places.endpoints(), leader: self.target_leader }
    }

    fn measure(&self, load: &Load, places: &Places, cluster: &mut Cluster) -> anyhow::Result<Outcome> {
        let mut generator = Generator::start(&self.load, load, &self.target(places), self.scale)?;
        generator.ready(|| cluster.alive())?;
        let start = Sample::take(&cluster.ids(), generator.id())?;
        generator.go()?;
        let seen = generator.result(|| cluster.alive())?;
        // An exited process that nobody has waited for keeps its counters.
        let end = Sample::take(&cluster.ids(), generator.id())?;
        let memory = cluster.ids().into_iter().map(proc_fs::memory).collect::<anyhow::Result<Vec<_>>>()?;
        let mut figures = seen.metrics;
        let ops = figures.get("ops").copied().unwrap_or(1.0);
        ensure!(ops > 0.0, "nothing was done in the time");
        let used = end.servers_since(&start);
        let cpu_us: u64 = used.iter().map(|used| used.cpu_us).sum();
        let written: u64 = used.iter().map(|used| used.written_bytes).sum();
        let anonymous = sum(&memory, |memory| memory.anonymous);
        let keys = f64::from(load.keys_at(self.scale));
        let leader = seen.leader.and_then(|leader| places.endpoints().iter().position(|at| *at == leader));
        let mut add = |key: &str, value: f64| figures.extend([(key.to_owned(), value)]);
        add("cpu_us_op", cpu_us as f64 / ops);
        if let Some(leader) = leader {
            add("cpu_leader_us_op", used[leader].cpu_us as f64 / ops);
        }
        add("written_op", written as f64 / ops);
        add("anon_mib", anonymous / MIB);
        add("anon_most_mib", memory.iter().map(|memory| memory.anonymous).max().unwrap_or(0) as f64 / MIB);
        add("anon_key", anonymous / keys);
        add("peak_mib", sum(&memory, |memory| memory.peak) / MIB);
        let mut threads_us_op = BTreeMap::new();
        for (index, used) in used.into_iter().enumerate() {
            let role = leader.map_or("", |leader| if index == leader { "leader " } else { "follower " });
            for (name, us) in used.threads_cpu_us {
                *threads_us_op.entry(format!("{role}{name}")).or_default() += us as f64 / ops;
            }
        }
        Ok(Outcome {
            figures,
            not_served: seen.not_served,
            elsewhere: end.elsewhere_since(&start),
            elections: seen.elections,
            threads_us_op,
        })
    }

    /// From the start of the process to the first answer, measured here: the generator polls from before the start.
    fn restart(
        &self,
        contender: &Contender,
        load: &Load,
        places: &Places,
        outcome: &mut Outcome,
    ) -> anyhow::Result<()> {
        let load = Load { workload: "first-read", ..*load };
        let mut generator = Generator::start(&self.load, &load, &self.target(places), self.scale)?;
        generator.ready(|| Ok(()))?;
        let begin = Instant::now();
        let mut cluster = Cluster::start(contender, places)?;
        generator.go()?;
        generator.result(|| cluster.alive()).map_err(|error| error.context(cluster.last_words()))?;
        let took = begin.elapsed();
        let [server] = cluster.ids()[..] else { bail!("a restart is measured of one member") };
        let (cpu_us, memory) = (proc_fs::cpu_us(server)?, proc_fs::memory(server)?);
        let keys = f64::from(load.keys_at(self.scale));
        outcome.figures.extend(
            [
                ("restart_s", took.as_secs_f64()),
                ("restart_cpu_s", cpu_us as f64 / 1e6),
                ("restart_anon_key", memory.anonymous as f64 / keys),
                ("restart_rss_mib", memory.resident as f64 / MIB),
            ]
            .map(|(key, value)| (key.to_owned(), value)),
        );
        Ok(())
    }
}

fn sum(memory: &[Memory], bytes: impl Fn(&Memory) -> u64) -> f64 {
    memory.iter().map(bytes).sum::<u64>() as f64
}
