plugins {
    id("com.android.application")
    kotlin("android")
}

android {
    namespace = "sottovoce.app"
    compileSdk = 35

    defaultConfig {
        applicationId = "sottovoce.app"
        minSdk = 26
        targetSdk = 35
        versionCode = 1
        versionName = "0.1.0"
        ndk { abiFilters += listOf("arm64-v8a", "x86_64") }
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
}

kotlin {
    jvmToolchain(17)
}

dependencies {
    implementation(project(":core"))
    // The full package: one that is reduced to some operators lacks those of com.microsoft.
    implementation("com.microsoft.onnxruntime:onnxruntime-android:1.22.0")
}
