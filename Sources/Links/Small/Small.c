// Nothing: a target without code, for the settings of the products that name it (Package.swift).
