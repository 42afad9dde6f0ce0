//! One build: stage after stage, instruction after instruction.

use std::{collections::BTreeMap, fs, io::Read, sync::Arc, time::Instant};

use godwit_runtime::{
    Interrupt,
    build::{
        Arguments, Base, Cache, Cached, Copy, Dockerfile, Instruction, Key, Kind, Network, Plan,
        Run, Stage, archive, changes, parse, plan,
    },
    image::{
        Pin, Store,
        author::{Clamp, Document, Event},
    },
};
use godwit_types::{BuildEvent, BuildRequest, Digest, ImageSummary};
use tokio::sync::{Notify, Semaphore, mpsc};

use super::{
    error::{BuildError, StepError},
    files::{Copying, From, Making},
    leases::Workplace,
    step::Running,
};
use crate::{host::Host, loading::Archive};

/// The argument that says what time a build is of, in seconds since 1970: two builds of the same
/// are then the same to the last bit.
const EPOCH: &str = "SOURCE_DATE_EPOCH";
/// What is read of a Dockerfile; a longer one is refused when it is parsed.
const MAX_TEXT: u64 = 4 << 20;

/// Ends a build early. Cloned: the same.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    interrupt: Interrupt,
    notify: Arc<Notify>,
}

impl Cancel {
    pub fn cancel(&self) {
        self.interrupt.set();
        self.notify.notify_waiters();
    }

    pub fn interrupt(&self) -> Interrupt {
        self.interrupt.clone()
    }

    pub async fn cancelled(&self) {
        loop {
            let notified = self.notify.notified();
            if self.interrupt.is_set() {
                return;
            }
            notified.await;
        }
    }
}

/// What a build says. Of a step's output only so much is said ahead of who reads it.
#[derive(Debug, Clone)]
pub struct Said {
    pub events: mpsc::UnboundedSender<BuildEvent>,
    /// A place for each piece of output; who has read one gives its place back.
    pub room: Arc<Semaphore>,
}

/// Bytes that nobody can guess.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // The kernel's generator does not fail once the system is up.
    let read = fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    if let Err(error) = read {
        tracing::error!(%error, "no random bytes");
    }
    bytes
}

/// See the module.
pub struct Job {
    host: Arc<Host>,
    request: BuildRequest,
    workplace: Workplace,
    cancel: Cancel,
    said: Said,
    cache: Cache,
    store: Store,
    arguments: Arguments,
    clamp: Clamp,
    /// The time that what is made now is of, RFC 3339.
    now: String,
    /// The last step's.
    number: u32,
    done: Vec<Option<Stage>>,
    /// Nobody prunes these while it goes on.
    pins: Vec<Pin>,
}

/// Where an instruction is.
struct At<'a> {
    file: &'a str,
    instruction: &'a Instruction,
}

impl At<'_> {
    fn failed(&self, source: StepError) -> BuildError {
        let (file, line) = (self.file.to_owned(), self.instruction.line);
        let text = self.instruction.text.clone();
        match source {
            StepError::Exit(code) => BuildError::Exit {
                file,
                line,
                text,
                code,
            },
            StepError::Interrupted => BuildError::Cancelled,
            StepError::Refused(fault) => BuildError::Dockerfile(fault.at(&file, line)),
            source => BuildError::Step {
                file,
                line,
                text,
                source: Box::new(source),
            },
        }
    }
}

/// Runs a build to its end and clears up after it.
pub async fn build(
    host: Arc<Host>,
    request: BuildRequest,
    context: Archive,
    cancel: Cancel,
    said: Said,
) -> Result<ImageSummary, BuildError> {
    let prepare = |what: &str, source| BuildError::Prepare(what.to_owned(), source);
    let name: String = random::<8>()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let workplace = Workplace::make(&host.runtime, &name)
        .map_err(|source| prepare("the build's directory", source))?;
    let cache = Cache::open(&host.runtime.builds().join("cache"));
    let cache = cache.map_err(|error| prepare("the build cache", std::io::Error::other(error)))?;
    let clamp = request
        .arguments
        .get(EPOCH)
        .and_then(|text| text.parse().ok());
    let mut job = Job {
        store: host.runtime.images().clone(),
        arguments: Arguments {
            given: request.arguments.clone(),
            globals: BTreeMap::new(),
        },
        now: super::service::rfc3339(clamp),
        host: host.clone(),
        request,
        workplace,
        cancel: cancel.clone(),
        said,
        cache,
        clamp,
        number: 0,
        done: Vec::new(),
        pins: Vec::new(),
    };
    let built = job.run(context).await;
    job.workplace.clear(&host.runtime).await;
    match built {
        // Whatever it was that the interruption broke.
        Err(_) if cancel.interrupt().is_set() => Err(BuildError::Cancelled),
        other => other,
    }
}

impl Job {
    fn say(&self, event: BuildEvent) {
        // Nobody listens any more: the build is about to be cancelled.
        let _ = self.said.events.send(event);
    }

    async fn run(&mut self, context: Archive) -> Result<ImageSummary, BuildError> {
        self.receive(context).await?;
        let file = self.dockerfile().await?;
        let target = self.request.target.clone();
        let plan = plan(&file, &self.request.arguments, target.as_deref())?;
        self.arguments.globals = plan.globals.clone();
        self.warn_of_unused(&file);
        self.done = vec![None; plan.stages.len()];
        for index in plan.needed.clone() {
            self.stage(&file, &plan, index).await?;
        }
        let stage = self.done[plan.target].take();
        let mut document = stage.expect("the target is among those needed").document;
        for (name, value) in &self.request.labels {
            document.set_in("Labels", name, serde_json::json!(value));
        }
        let layers = document
            .diff_ids()
            .map_err(|error| BuildError::Image(error.into()))?;
        if layers.is_empty() {
            return Err(BuildError::Empty);
        }
        if self.cancel.interrupt().is_set() {
            return Err(BuildError::Cancelled);
        }
        let (store, names) = (self.store.clone(), self.request.names.clone());
        blocking(move || store.register(&document, &names))
            .await
            .map_err(BuildError::Image)
    }

    async fn receive(&mut self, context: Archive) -> Result<(), BuildError> {
        let (dir, cancel) = (self.workplace.context(), self.cancel.interrupt());
        let mut context = Counted {
            inner: context,
            bytes: 0,
        };
        let bytes = blocking(move || {
            let how = archive::Unpacking {
                owner: Some((0, 0)),
                follow: false,
                dest: "",
                go_on: &|| !cancel.is_set(),
            };
            archive::unpack(&mut context, &dir, &how).map(|_| context.bytes)
        })
        .await
        .map_err(BuildError::Context)?;
        let host = self.host.name.clone();
        self.say(BuildEvent::Context { host, bytes });
        Ok(())
    }

    async fn dockerfile(&self) -> Result<Dockerfile, BuildError> {
        let name = self.request.file.clone();
        if let Some(text) = &self.request.text {
            return Ok(parse(&name, text)?);
        }
        let dir = self.workplace.context();
        let text = blocking({
            let name = name.clone();
            move || {
                let found = godwit_runtime::build::copy::find(&dir, &name, "the build context");
                let mut found = found.ok()?;
                Some(found.pop()?.read_text(MAX_TEXT))
            }
        })
        .await;
        match text {
            None => Err(BuildError::NoDockerfile(name)),
            Some(Err(source)) => Err(BuildError::Unreadable(name, source)),
            Some(Ok(text)) => Ok(parse(&name, &text)?),
        }
    }

    fn warn_of_unused(&self, file: &Dockerfile) {
        for name in self.request.arguments.keys() {
            let declared = file.instructions.iter().any(|instruction| {
                matches!(&instruction.kind, Kind::Arg(all) if all.iter().any(|(arg, _)| arg == name))
            });
            let known = name == EPOCH || name.to_ascii_lowercase().ends_with("_proxy");
            if !declared && !known {
                let text = format!("build argument `{name}` is used by no `ARG`");
                self.say(BuildEvent::Warning { text });
            }
        }
    }

    async fn stage(
        &mut self,
        file: &Dockerfile,
        plan: &Plan,
        index: usize,
    ) -> Result<(), BuildError> {
        if self.done[index].is_some() {
            return Ok(());
        }
        let planned = &plan.stages[index];
        let from = Instruction {
            line: planned.line,
            text: planned.text.clone(),
            kind: Kind::From {
                platform: None,
                base: String::new(),
                name: None,
            },
        };
        let at = At {
            file: &file.file,
            instruction: &from,
        };
        let mut stage = match &planned.base {
            Base::Scratch => Stage::new(Document::empty(), Key::begin("scratch"), file.escape),
            Base::Stage(base) => {
                let base = self.done[*base].as_ref();
                base.expect("stages are built in their order").child()
            }
            Base::Image(name) => {
                let (id, document) = self.image(name).await.map_err(|error| at.failed(error))?;
                Stage::new(document, Key::begin(id.as_str()), file.escape)
            }
        };
        let mut instructions = changes(&file.file, planned.line, &stage.take_triggers())?;
        instructions.extend(planned.instructions.iter().cloned());
        let is_step =
            |i: &&Instruction| matches!(i.kind, Kind::Run(_) | Kind::Copy(_) | Kind::Workdir(_));
        let steps = 1 + instructions.iter().filter(is_step).count();
        let alone = plan.stages.len() == 1 && planned.name.is_none();
        let place = |step: usize| match alone {
            true => format!("{step}/{steps}"),
            false => format!("{} {step}/{steps}", plan.shown(index)),
        };
        self.begin(place(1), &from);
        self.say(BuildEvent::Done {
            number: self.number,
            millis: 0,
        });
        let mut step = 1;
        for instruction in &instructions {
            if self.cancel.interrupt().is_set() {
                return Err(BuildError::Cancelled);
            }
            let at = At {
                file: &file.file,
                instruction,
            };
            let started = Instant::now();
            if is_step(&instruction) {
                step += 1;
                self.begin(place(step), instruction);
            }
            self.instruction(plan, index, &mut stage, instruction)
                .await
                .map_err(|error| at.failed(error))?;
            if is_step(&instruction) {
                let millis = started.elapsed().as_millis() as u64;
                self.say(BuildEvent::Done {
                    number: self.number,
                    millis,
                });
            }
        }
        self.done[index] = Some(stage);
        Ok(())
    }

    fn begin(&mut self, place: String, instruction: &Instruction) {
        self.number += 1;
        self.say(BuildEvent::Step {
            number: self.number,
            place,
            text: instruction.text.clone(),
            line: instruction.line,
        });
    }

    async fn image(&self, name: &str) -> Result<(Digest, Document), StepError> {
        let (store, name) = (self.store.clone(), name.to_owned());
        blocking(move || {
            let found = store.find_text(&name)?;
            let image = found.ok_or(StepError::NoImage(name))?;
            let document = store.editable(&image.id)?;
            Ok((image.id, document))
        })
        .await
    }

    async fn instruction(
        &mut self,
        plan: &Plan,
        index: usize,
        stage: &mut Stage,
        instruction: &Instruction,
    ) -> Result<(), StepError> {
        match &instruction.kind {
            Kind::Run(run) => self.run_step(stage, instruction, run).await,
            Kind::Copy(copy) => self.copy_step(plan, index, stage, instruction, copy).await,
            _ => {
                stage.apply(instruction, &self.arguments)?;
                if matches!(instruction.kind, Kind::Workdir(_)) {
                    return self.workdir_step(stage, instruction).await;
                }
                // Arguments are nothing that an image has.
                if !matches!(instruction.kind, Kind::Arg(_)) {
                    let key = stage.key.then(&[b"note"]);
                    let known = self.known(&key, &[]);
                    let known = known.unwrap_or_else(|| Cached::new(self.now.clone(), None));
                    self.conclude(stage, instruction, &[&key], known)?;
                }
                Ok(())
            }
        }
    }

    /// What is known of a step, if its layer is still there above these.
    fn known(&self, key: &Key, below: &[Digest]) -> Option<Cached> {
        if self.request.no_cache {
            return None;
        }
        let found = self.cache.find(key)?;
        if let Some(layer) = &found.layer {
            let mut all = below.to_vec();
            all.push(layer.clone());
            self.store.unpacked(&all)?;
        }
        Some(found)
    }

    fn say_cached(&self) {
        self.say(BuildEvent::Cached {
            number: self.number,
        });
    }

    /// Writes a step's result into the image and the cache.
    fn conclude(
        &self,
        stage: &mut Stage,
        instruction: &Instruction,
        keys: &[&Key],
        result: Cached,
    ) -> Result<(), StepError> {
        let event = Event {
            created: result.created.clone(),
            created_by: instruction.text.clone(),
            ..Event::default()
        };
        match &result.layer {
            Some(layer) => {
                stage.document.push_layer(layer, &event)?;
                stage.key = stage.key.then(&[b"layer", layer.as_str().as_bytes()]);
            }
            None => stage.document.push_note(&event),
        }
        for key in keys {
            self.cache.keep(key, &result)?;
        }
        Ok(())
    }

    /// Has the layers so far by an image without a name: for `RUN`, and so that nobody collects
    /// them meanwhile.
    async fn lease(&mut self, document: &Document) -> Result<Digest, StepError> {
        let (store, document) = (self.store.clone(), document.clone());
        let id = document.id();
        // One that was there before is not ours to forget.
        let known = blocking({
            let store = store.clone();
            move || store.ids()
        })
        .await?;
        if !known.contains(&id) {
            self.workplace
                .hold_image(&id)
                .map_err(|source| StepError::Io("a lease".to_owned(), source))?;
        }
        self.pins.push(store.pin(vec![id.clone()]));
        blocking(move || store.register(&document, &[])).await?;
        Ok(id)
    }

    async fn run_step(
        &mut self,
        stage: &mut Stage,
        instruction: &Instruction,
        run: &Run,
    ) -> Result<(), StepError> {
        let layers = stage.document.diff_ids()?;
        let key = stage.run_key(run);
        if let Some(known) = self.known(&key, &layers) {
            self.say_cached();
            return self.conclude(stage, instruction, &[&key], known);
        }
        if layers.is_empty() {
            return Err(StepError::NothingToRun);
        }
        let mut document = stage.document.clone();
        // Of the image that is made, and of no step: what a step writes below a volume is kept.
        for key in [
            "Entrypoint",
            "Cmd",
            "Healthcheck",
            "Volumes",
            "ExposedPorts",
        ] {
            document.config_mut().remove(key);
        }
        let image = self.lease(&document).await?;
        let running = Running {
            host: &self.host,
            workplace: &self.workplace,
            cancel: &self.cancel,
            room: &self.said.room,
            image,
            layers,
            command: stage.command(run),
            env: stage.environment(&self.arguments),
            limits: self.request.limits.clone(),
            network: run.network == Network::Default && !self.request.no_network,
            clamp: self.clamp,
        };
        let (number, events) = (self.number, self.said.events.clone());
        let mut said = move |stream, text| {
            let _ = events.send(BuildEvent::Output {
                number,
                stream,
                text,
            });
        };
        let layer = running.run(&mut said).await?;
        let result = Cached::new(self.now.clone(), Some(layer.diff_id));
        self.conclude(stage, instruction, &[&key], result)?;
        self.lease(&stage.document).await.map(drop)
    }

    fn making(&self, layers: Vec<Digest>) -> Making {
        Making {
            store: self.store.clone(),
            layers,
            root: self.workplace.root(self.number, "into"),
            empty: self.workplace.empty(),
            clamp: self.clamp,
            interrupt: self.cancel.interrupt(),
        }
    }

    async fn workdir_step(
        &mut self,
        stage: &mut Stage,
        instruction: &Instruction,
    ) -> Result<(), StepError> {
        let layers = stage.document.diff_ids()?;
        let key = stage.key.then(&[b"directory"]);
        if let Some(known) = self.known(&key, &layers) {
            self.say_cached();
            return self.conclude(stage, instruction, &[&key], known);
        }
        let (making, path) = (
            self.making(layers),
            stage.document.text("WorkingDir").to_owned(),
        );
        let layer = blocking(move || making.directory(&path)).await?;
        let result = Cached::new(self.now.clone(), layer.map(|layer| layer.diff_id));
        self.conclude(stage, instruction, &[&key], result)?;
        self.lease_layers(stage).await
    }

    async fn copy_step(
        &mut self,
        plan: &Plan,
        index: usize,
        stage: &mut Stage,
        instruction: &Instruction,
        copy: &Copy,
    ) -> Result<(), StepError> {
        let layers = stage.document.diff_ids()?;
        let expanded = stage.expand_copy(copy)?;
        let copying = Copying {
            add: copy.add,
            from: self.source(plan, index, copy).await?,
            expanded: expanded.clone(),
            texts: self.workplace.texts(self.number),
        };
        let mut keys = Vec::new();
        // From a stage or an image: one that did not change needs no look at its files.
        if let Some(origin) = copying.origin() {
            let key = stage.copy_key(copy, &expanded, &origin);
            if let Some(known) = self.known(&key, &layers) {
                self.say_cached();
                return self.conclude(stage, instruction, &[&key], known);
            }
            keys.push(key);
        }
        let making = self.making(layers.clone());
        let content = blocking({
            let (copying, making) = (copying.clone(), making.clone());
            move || copying.content(&making)
        })
        .await?;
        let key = stage.copy_key(copy, &expanded, &content);
        let known = self.known(&key, &layers);
        keys.push(key);
        let keys: Vec<&Key> = keys.iter().collect();
        if let Some(known) = known {
            self.say_cached();
            return self.conclude(stage, instruction, &keys, known);
        }
        let layer = blocking(move || copying.make(&making)).await?;
        let result = Cached::new(self.now.clone(), Some(layer.diff_id));
        self.conclude(stage, instruction, &keys, result)?;
        self.lease_layers(stage).await
    }

    async fn lease_layers(&mut self, stage: &Stage) -> Result<(), StepError> {
        self.lease(&stage.document).await.map(drop)
    }

    async fn source(&self, plan: &Plan, index: usize, copy: &Copy) -> Result<From, StepError> {
        let Some(text) = &copy.from else {
            return Ok(From::Context(self.workplace.context()));
        };
        let root = self.workplace.root(self.number, "from");
        let earlier = plan.earlier(index, text);
        // A trigger may name a stage that the plan did not know to be needed.
        if let Some(stage) = earlier
            && let Some(done) = &self.done[stage]
        {
            return Ok(From::Layers {
                shown: format!("stage `{}`", plan.shown(stage)),
                layers: done.document.diff_ids()?,
                root,
            });
        }
        let (_, document) = self.image(text).await?;
        Ok(From::Layers {
            shown: format!("image `{text}`"),
            layers: document.diff_ids()?,
            root,
        })
    }
}

struct Counted<R> {
    inner: R,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.bytes += n as u64;
        Ok(n)
    }
}

/// Work that waits for a disk.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
