// The one place of the libraries where a backend is named: what runs where nobody says on what.

import Platform

extension TrainingRun where B == CPUFloat {
  /// A run on this processor, in single precision; see the initializer that takes a backend.
  ///
  /// - Parameters:
  ///   - recipe: the settings; `threads`, where they have none, are one for each core that the process may use, or those of the run to go on with.
  ///   - model: a Hugging Face folder or a GGUF file; nil for what the recipe says.
  ///   - data: a file of samples, or a folder of tasks; nil for what the recipe says.
  ///   - steps: the number of steps; nil for what the recipe says.
  ///   - folder: where to write as the run goes.
  ///   - resumes: whether to go on from the newest checkpoint in `folder`.
  ///   - note: hears what a user may want to know.
  /// - Throws: `SettingsError` and `CheckpointError`.
  public convenience init(
    _ recipe: TrainingRecipe, model: String? = nil, data: String? = nil, steps: Int? = nil, out folder: String? = nil,
    resumes: Bool = false,
    note: (SettingsText) -> Void = { _ in }
  ) throws {
    var recipe = recipe
    let threads = Self.threads(recipe.threads, folder, resumes: resumes)
    recipe.threads = threads
    try self.init(
      recipe, model: model, data: data, steps: steps, out: folder, resumes: resumes, on: CPUFloat(threads: threads), note: note)
  }

  /// A run of several adapters over one base on this processor, in single precision.
  ///
  /// - Throws: `SettingsError` and `CheckpointError`.
  public convenience init(
    _ recipes: [TrainingRecipe], out folder: String? = nil, resumes: Bool = false, note: (SettingsText) -> Void = { _ in }
  ) throws {
    let threads = Self.threads(recipes.first?.threads, folder, resumes: resumes)
    let given = recipes.map { recipe in
      var recipe = recipe
      recipe.threads = threads
      return recipe
    }
    try self.init(given, out: folder, resumes: resumes, on: CPUFloat(threads: threads), note: note)
  }

  private static func threads(_ given: Int?, _ folder: String?, resumes: Bool) -> Int {
    given ?? (resumes ? folder.flatMap { TrainingCheckpoint.threads(ofRunIn: $0) } : nil) ?? POSIX.usableCores
  }
}

extension LoadedModel where B == CPUFloat {
  /// A model on this processor, in single precision; see the initializer that takes a backend.
  ///
  /// - Throws: `CheckpointError` for everything that is missing, wrong or not built yet.
  public init(_ path: String, adapter: String? = nil, threads: Int? = nil) throws {
    try self.init(path, adapter: adapter, on: CPUFloat(threads: threads ?? POSIX.usableCores))
  }
}
